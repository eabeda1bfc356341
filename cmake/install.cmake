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

install(FILES conf/completions/chmux.bash RENAME chmux
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)

# Not in CMAKE_INSTALL_LIBDIR: systemd looks in lib/ whatever the machine calls its libraries' folder.
set(CHMUX_UNIT_DIR lib/systemd/system CACHE STRING "Where the systemd units go, under the prefix")
set(CHMUX_ZSH_DIR "" CACHE STRING "Where the completion for zsh goes, if not where zsh looks")
foreach(name PROJECT_SOURCE_DIR PROJECT_BINARY_DIR CHMUX_UNIT_DIR CHMUX_ZSH_DIR CMAKE_INSTALL_SBINDIR
        CMAKE_INSTALL_SYSCONFDIR CMAKE_INSTALL_DOCDIR CMAKE_INSTALL_DATADIR)
    install(CODE "set(${name} \"${${name}}\")")
endforeach()
install(SCRIPT ${PROJECT_SOURCE_DIR}/cmake/install_prefixed.cmake)
