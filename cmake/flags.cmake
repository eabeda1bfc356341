# Warning, hardening and sanitizer flags. Each is probed, so that gcc and clang both take what they
# know. chmux_flags carries them to our own targets only, privately.

include(CheckCCompilerFlag)
include(CheckLinkerFlag)

add_library(chmux_flags INTERFACE)
target_compile_definitions(chmux_flags INTERFACE
    _GNU_SOURCE=
    CHMUX_VERSION="${PROJECT_VERSION}"
    $<$<BOOL:${CHMUX_DEBUG}>:CHMUX_DEBUG>)

# Adds each flag the compiler knows to chmux_flags.
function(chmux_compile_flags)
    set(CMAKE_REQUIRED_FLAGS -Wall) # some flags are refused without the one they refine
    foreach(flag IN LISTS ARGN)
        string(MAKE_C_IDENTIFIER "CC_HAS${flag}" has)
        check_c_compiler_flag("${flag}" ${has})
        if(${has})
            target_compile_options(chmux_flags INTERFACE "${flag}")
        endif()
    endforeach()
endfunction()

function(chmux_link_flags)
    foreach(flag IN LISTS ARGN)
        string(MAKE_C_IDENTIFIER "LD_HAS${flag}" has)
        check_linker_flag(C "${flag}" ${has})
        if(${has})
            target_link_options(chmux_flags INTERFACE "${flag}")
        endif()
    endforeach()
endfunction()

# Warnings: house style, "Warnings".
chmux_compile_flags(
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wundef
    -Wpointer-arith -Wcast-qual -Wcast-align -Wwrite-strings -Wformat=2 -Wvla -Walloca
    -Wswitch-enum -Wconversion -Wdouble-promotion -Wimplicit-fallthrough -Wnull-dereference
    -Wdate-time
    # gcc
    -Wduplicated-cond -Wduplicated-branches -Wlogical-op -Wjump-misses-init -Warith-conversion
    -Wstack-usage=16384
    # clang
    -Wthread-safety -Wassign-enum -Wcomma
    # errors in every build
    -Werror=implicit-function-declaration -Werror=incompatible-pointer-types
    -Werror=int-conversion -Werror=return-type -Werror=format -Werror=format-security -Werror=vla
    -Werror=switch -Werror=strict-prototypes -Werror=uninitialized)
if(CHMUX_WERROR)
    chmux_compile_flags(-Werror)
endif()

# Code generation: what the language leaves undefined must not delete our checks. -fPIE and not
# CMake's -fPIC for the layers: nothing here is a shared object, and PIC would forbid inlining.
chmux_compile_flags(-fno-strict-aliasing -fno-delete-null-pointer-checks -fPIE)
chmux_link_flags(-pie)

if(CHMUX_SANITIZE)
    # Flags of their own order: -fsanitize= must be there when the link is probed, so no probing.
    # No FORTIFY (it hides accesses from ASan) and no -fno-strict-overflow (it turns UBSan's
    # overflow check off).
    set(sanitize_flags "-fsanitize=${CHMUX_SANITIZE}" -fno-sanitize-recover=all
        -fno-omit-frame-pointer)
    target_compile_options(chmux_flags INTERFACE ${sanitize_flags})
    target_link_options(chmux_flags INTERFACE ${sanitize_flags})
else()
    chmux_compile_flags(
        -fno-strict-overflow -fstack-protector-strong -fstack-clash-protection
        -ftrivial-auto-var-init=zero)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
        chmux_compile_flags(-mbranch-protection=standard)
    else()
        chmux_compile_flags(-fcf-protection=full)
    endif()
    if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" OR CMAKE_C_FLAGS_DEBUG MATCHES "-O[1-3gs]")
        # Undefined first: distributions predefine it, and a redefinition is a warning.
        target_compile_options(chmux_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
    endif()
    chmux_link_flags(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,separate-code)
endif()

if(CHMUX_COVERAGE)
    target_compile_options(chmux_flags INTERFACE --coverage)
    target_link_options(chmux_flags INTERFACE --coverage)
endif()
