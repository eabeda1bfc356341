#ifndef CHMUX_RT_CORES_H
#define CHMUX_RT_CORES_H
/*
 * cores: how many cores this process may keep busy.
 * Threads    Any; it reads files of the kernel's, which do not block.
 * Source     Linux, Documentation/admin-guide/cgroup-v2.rst: cpu.max, "$MAX $PERIOD"; of version 1,
 *            Documentation/scheduler/sched-bwc.rst: cpu.cfs_quota_us, -1 for none, and
 *            cpu.cfs_period_us. All in microseconds.
 */
#include "base/str.h"
#include "base/thread.h"

/* Those of its affinity, or fewer when a cgroup caps its CPU time: a container's CPU limit, a
 * service's CPUQuota=. At least 1. */
size_t cores_usable(void) ANY_THREAD;

/* The part about cgroups. members: what /proc/self/cgroup holds; mount: the folder where the groups
 * of version 2 are, and in cpu/ those of version 1. The smallest limit of the groups it names there
 * and of all above them, in cores, rounded up; SIZE_MAX: there is none that can be read. */
size_t cores_by_cgroup(const char *mount, struct str members) ANY_THREAD;

#endif
