# One static library per folder of daemon/. A layer links only what lies below it, so an upward
# call does not link; tests/lint/lint_layers checks the includes. A folder without a .c file yet is
# an empty library, so that the layers above it can be built already.

function(chmux_layer name)
    file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/daemon/${name}/*.c)
    list(FILTER sources EXCLUDE REGEX "/main\\.c$") # a program's own, so that tests can link the rest
    if(sources)
        add_library(chmux_${name} STATIC ${sources})
        target_include_directories(chmux_${name} PUBLIC ${PROJECT_SOURCE_DIR}/daemon)
        target_link_libraries(chmux_${name} PUBLIC ${ARGN} PRIVATE chmux_flags)
    else()
        add_library(chmux_${name} INTERFACE)
        target_include_directories(chmux_${name} INTERFACE ${PROJECT_SOURCE_DIR}/daemon)
        target_link_libraries(chmux_${name} INTERFACE ${ARGN})
    endif()
endfunction()

# Bottom first.
set(CHMUX_LAYERS base http codec clickhouse config rt net upstream proxy admin
    reload ctl)
chmux_layer(base Threads::Threads)
chmux_layer(http chmux_base)
chmux_layer(codec chmux_base PkgConfig::ZLIB PkgConfig::ZSTD PkgConfig::LZ4 PkgConfig::BROTLIDEC
    PkgConfig::BROTLIENC)
chmux_layer(clickhouse chmux_http chmux_codec)
chmux_layer(config chmux_base PkgConfig::INIH)
chmux_layer(rt chmux_http chmux_clickhouse chmux_config PkgConfig::LIBEVENT Threads::Threads)
chmux_layer(net chmux_rt PkgConfig::OPENSSL)
chmux_layer(upstream chmux_net)
chmux_layer(proxy chmux_upstream)
chmux_layer(admin chmux_proxy)
chmux_layer(reload chmux_admin)
chmux_layer(ctl chmux_reload PkgConfig::JANSSON m)

# Links `target` to the layers that its source, or a header beside it, includes: so a unit test sees
# its layer and below and does not wait for what lies above.
function(chmux_link_included target source)
    set(files ${source})
    set(layers base)
    while(files)
        list(POP_FRONT files file)
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
        file(STRINGS ${file} includes REGEX "^#include \"")
        foreach(layer IN LISTS CHMUX_LAYERS)
            if(includes MATCHES "#include \"${layer}/")
                list(APPEND layers ${layer})
            endif()
        endforeach()
        foreach(line IN LISTS includes)
            string(REGEX REPLACE "^#include \"([^\"]*)\".*" "\\1" header "${line}")
            if(NOT header MATCHES "/")
                cmake_path(GET source PARENT_PATH folder)
                list(APPEND files ${folder}/${header})
            endif()
        endforeach()
    endwhile()
    list(REMOVE_DUPLICATES layers)
    list(TRANSFORM layers PREPEND chmux_)
    target_link_libraries(${target} PRIVATE ${layers} chmux_flags)
endfunction()
