// SPDX-License-Identifier: Apache-2.0
// Reports the cause when an access to memory ends the process: a page of a mapped file that the
// disk does not give, or damage that leads a library beyond the file (SIGBUS), or a bad address
// (SIGSEGV). Without it a daemon dies without a line.
#ifndef CKPTFS_PLATFORM_FAULT_REPORT_H
#define CKPTFS_PLATFORM_FAULT_REPORT_H

// Sets signal handlers that report such an access on stderr and in the log's file, with the file
// that is mapped there, and then end the process by the same signal.
void fault_report_start(void);

#endif
