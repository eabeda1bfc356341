# The manual pages. chmux.conf.5 is made by a program of the build from the option table.

add_executable(man_options docs/man/man_options.c)
target_link_libraries(man_options PRIVATE chmux_config chmux_base chmux_flags)
set(conf_page ${PROJECT_BINARY_DIR}/man/chmux.conf.5)
set(conf_template ${PROJECT_SOURCE_DIR}/docs/man/chmux.conf.5.in)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/man)
add_custom_command(OUTPUT ${conf_page} COMMAND man_options ${conf_template} > ${conf_page}.new
    COMMAND ${CMAKE_COMMAND} -E rename ${conf_page}.new ${conf_page}
    DEPENDS man_options ${conf_template} VERBATIM)
add_custom_target(man ALL DEPENDS ${conf_page})

file(GLOB CHMUX_MAN_PAGES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.[1-8])
list(APPEND CHMUX_MAN_PAGES ${conf_page})
foreach(page IN LISTS CHMUX_MAN_PAGES)
    cmake_path(GET page EXTENSION LAST_ONLY section)
    string(SUBSTRING "${section}" 1 -1 section)
    install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
