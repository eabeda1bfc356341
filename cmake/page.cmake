# The dashboard's files as C arrays. As part of a build it says how they are made; run as a script
# (cmake -DOUT=FILE.c -DFILES=a;b -P page.cmake) it makes them.

if(CMAKE_SCRIPT_MODE_FILE)
    set(text "#include <stddef.h>\n")
    foreach(file IN LISTS FILES)
        cmake_path(GET file FILENAME name)
        string(MAKE_C_IDENTIFIER "page_${name}" array)
        file(READ "${file}" hex HEX)
        string(REGEX REPLACE "(..)" "'\\\\x\\1'," bytes "${hex}")
        string(APPEND text
            "extern const char ${array}[];\nextern const size_t ${array}_len;\n"
            "const char ${array}[] = {${bytes}};\n"
            "const size_t ${array}_len = sizeof(${array});\n")
    endforeach()
    file(WRITE "${OUT}" "${text}")
    return()
endif()

file(GLOB page_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/daemon/admin/page/*)
set(page_source ${CMAKE_CURRENT_BINARY_DIR}/admin_pages.c)
add_custom_command(OUTPUT ${page_source}
    COMMAND ${CMAKE_COMMAND} "-DOUT=${page_source}" "-DFILES=${page_files}"
        -P ${CMAKE_CURRENT_LIST_FILE}
    DEPENDS ${page_files} ${CMAKE_CURRENT_LIST_FILE}
    COMMENT "Compiling in the dashboard" VERBATIM)
target_sources(chmux_admin PRIVATE ${page_source})
