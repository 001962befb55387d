// SPDX-License-Identifier: Apache-2.0
// Says what ends the process when an access to memory fails: a page of a mapped file that the disk
// does not give, or damage that leads a library beyond the file (SIGBUS), or a bad address
// (SIGSEGV). Without it a daemon is gone without a line.
#ifndef CKPTFS_PLATFORM_FAULT_REPORT_H
#define CKPTFS_PLATFORM_FAULT_REPORT_H

// From now on such an access is reported on stderr and in the log's file, with the file that is
// mapped there; then it ends the process by the same signal as before.
void fault_report_start(void);

#endif
