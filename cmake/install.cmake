# What `cmake --install` puts where, beside the programs themselves.

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL FILES_MATCHING PATTERN "*.md")
install(DIRECTORY conf/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples OPTIONAL
    FILES_MATCHING PATTERN "*.conf" PATTERN "*.json" PATTERN "*.yml")

file(GLOB man_pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.[1-8])
foreach(page IN LISTS man_pages)
    cmake_path(GET page EXTENSION LAST_ONLY section)
    string(SUBSTRING "${section}" 1 -1 section)
    install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()

# Not in CMAKE_INSTALL_LIBDIR: systemd looks in lib/ whatever the machine calls its libraries' folder.
set(CHMUX_UNIT_DIR lib/systemd/system CACHE STRING "Where the systemd units go, under the prefix")
foreach(name PROJECT_SOURCE_DIR PROJECT_BINARY_DIR CHMUX_UNIT_DIR CMAKE_INSTALL_SBINDIR
        CMAKE_INSTALL_SYSCONFDIR CMAKE_INSTALL_DOCDIR)
    install(CODE "set(${name} \"${${name}}\")")
endforeach()
install(SCRIPT ${PROJECT_SOURCE_DIR}/cmake/install_prefixed.cmake)
