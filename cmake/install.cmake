# What `cmake --install` puts where, beside chmuxd itself.

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL FILES_MATCHING PATTERN "*.md")
install(DIRECTORY conf/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples OPTIONAL
    FILES_MATCHING PATTERN "*.conf")

file(GLOB man_pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.[1-8])
foreach(page IN LISTS man_pages)
    cmake_path(GET page EXTENSION LAST_ONLY section)
    string(SUBSTRING "${section}" 1 -1 section)
    install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()

# The configuration is the administrator's: an installed one is never overwritten. file(INSTALL) puts
# $DESTDIR in front by itself, EXISTS does not.
install(CODE "
    set(etc \"${CMAKE_INSTALL_FULL_SYSCONFDIR}/chmux\")
    if(NOT EXISTS \"\$ENV{DESTDIR}\${etc}/chmux.conf\")
        file(INSTALL DESTINATION \"\${etc}\" TYPE FILE
            FILES \"${PROJECT_SOURCE_DIR}/conf/chmux.conf\")
    endif()")
