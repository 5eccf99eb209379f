// kvasirctl trace record: what a tenant's sequences ask for, as a file for kvasir-replay.
#ifndef KVASIR_CLIENT_CTL_TRACE_FILE_H_
#define KVASIR_CLIENT_CTL_TRACE_FILE_H_

#include <ostream>
#include <string>

#include <absl/status/status.h>

#include "client/ctl/admin_client.h"
#include "client/ctl/command_line.h"

namespace kvasir::ctl {

// A line of Mooncake's format, with its end.
std::string TraceLineOf(const v1::TraceRecord& record);

// Writes each line as it comes, so that the file is whole wherever the program is stopped; says on
// `err` what is lost, and on `out` how many lines there are. Errors: the daemon's, kUnavailable for
// a file that cannot be written.
absl::Status RecordTrace(const CommandLine& line, AdminClient& daemon, std::ostream& out,
                         std::ostream& err);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_TRACE_FILE_H_
