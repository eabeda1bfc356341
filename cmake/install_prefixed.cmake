# Run by `cmake --install`: what holds paths, or lies outside the prefix. Only now is the prefix known for
# good, which `cmake --install --prefix` and cpack change.

# As GNUInstallDirs does it: with the prefix /usr the configuration is in /etc.
function(full_path out folder)
    if(folder MATCHES "^/")
        set(path "${folder}")
    elseif(CMAKE_INSTALL_PREFIX STREQUAL "/usr" AND folder MATCHES "^etc")
        set(path "/${folder}")
    else()
        set(path "${CMAKE_INSTALL_PREFIX}/${folder}")
    endif()
    set(${out} "${path}" PARENT_SCOPE)
endfunction()
full_path(SBINDIR "${CMAKE_INSTALL_SBINDIR}")
full_path(SYSCONFDIR "${CMAKE_INSTALL_SYSCONFDIR}")
full_path(DOCDIR "${CMAKE_INSTALL_DOCDIR}")
full_path(unit_dir "${CHMUX_UNIT_DIR}")

# systemd has notify-reload since 253, which knows when a reload has ended. An older one is told how to ask for it.
if(CHMUX_NOTIFY_RELOAD)
    set(SERVICE_TYPE "Type=notify-reload")
else()
    set(SERVICE_TYPE "Type=notify\nExecReload=/bin/sh -c 'kill -HUP $$MAINPID'")
endif()

foreach(unit chmux.service chmux.socket chmux-admin.socket)
    configure_file("${PROJECT_SOURCE_DIR}/systemd/${unit}.in"
        "${PROJECT_BINARY_DIR}/systemd/${unit}" @ONLY)
    file(INSTALL DESTINATION "${unit_dir}" TYPE FILE FILES "${PROJECT_BINARY_DIR}/systemd/${unit}")
endforeach()

# Debian's zsh has a folder of its own under /usr, and does not look into the usual one there.
if(CHMUX_ZSH_DIR)
    full_path(zsh_dir "${CHMUX_ZSH_DIR}")
elseif(CMAKE_INSTALL_PREFIX STREQUAL "/usr" AND EXISTS /etc/debian_version)
    full_path(zsh_dir "${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions")
else()
    full_path(zsh_dir "${CMAKE_INSTALL_DATADIR}/zsh/site-functions")
endif()
file(INSTALL DESTINATION "${zsh_dir}" TYPE FILE FILES "${PROJECT_SOURCE_DIR}/conf/completions/_chmux")

# The configuration is the administrator's: an installed one is never overwritten. file(INSTALL) puts
# $DESTDIR in front by itself, EXISTS does not.
if(NOT EXISTS "$ENV{DESTDIR}${SYSCONFDIR}/chmux/chmux.conf")
    file(INSTALL DESTINATION "${SYSCONFDIR}/chmux" TYPE FILE
        FILES "${PROJECT_SOURCE_DIR}/conf/chmux.conf")
endif()
