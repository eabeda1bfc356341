# What `cmake --install` puts where, beside the programs themselves.

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL
    FILES_MATCHING PATTERN "*.md" PATTERN "*.png" PATTERN man EXCLUDE)
install(DIRECTORY conf/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples OPTIONAL
    FILES_MATCHING PATTERN "*.conf" PATTERN "*.json" PATTERN "*.yml" PATTERN "*.yaml" PATTERN "Containerfile"
    PATTERN completions EXCLUDE)

install(FILES conf/completions/chmux.bash RENAME chmux
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)

# Not in CMAKE_INSTALL_LIBDIR: systemd looks in lib/ whatever the machine calls its libraries' folder.
set(CHMUX_UNIT_DIR lib/systemd/system CACHE STRING "Where the systemd units go, under the prefix")
set(CHMUX_ZSH_DIR "" CACHE STRING "Where the completion for zsh goes, if not where zsh looks")
if(NOT DEFINED CHMUX_NOTIFY_RELOAD)
    execute_process(COMMAND systemctl --version OUTPUT_VARIABLE systemd_version ERROR_QUIET)
    string(REGEX MATCH "^systemd ([0-9]+)" found "${systemd_version}")
    set(have_notify_reload OFF)
    if(found AND CMAKE_MATCH_1 GREATER_EQUAL 253)
        set(have_notify_reload ON)
    endif()
endif()
option(CHMUX_NOTIFY_RELOAD "The unit is for systemd 253 or later (default: the one here)"
    ${have_notify_reload})
foreach(name PROJECT_SOURCE_DIR PROJECT_BINARY_DIR CHMUX_UNIT_DIR CHMUX_ZSH_DIR CHMUX_NOTIFY_RELOAD
        CMAKE_INSTALL_SBINDIR CMAKE_INSTALL_SYSCONFDIR CMAKE_INSTALL_DOCDIR CMAKE_INSTALL_DATADIR)
    install(CODE "set(${name} \"${${name}}\")")
endforeach()
install(SCRIPT ${PROJECT_SOURCE_DIR}/cmake/install_prefixed.cmake)
