#include "client/ctl/trace_file.h"

#include <fstream>

#include "base/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir::ctl {

std::string TraceLineOf(const v1::TraceRecord& record) {
  return fmt::format(
      "{{\"timestamp\": {}, \"input_length\": {}, \"output_length\": {}, \"hash_ids\": [{}]}}\n",
      record.timestamp_ms(), record.input_length(), record.output_length(),
      fmt::join(record.hash_ids(), ", "));
}

absl::Status RecordTrace(const CommandLine& line, AdminClient& daemon, std::ostream& out,
                         std::ostream& err) {
  std::ofstream file(line.file, std::ios::trunc);
  if (!file) return Unavailable("the file cannot be written: output={}", line.file);
  v1::RecordTraceRequest request;
  request.set_tenant(line.tenant);
  request.set_seconds(line.seconds);
  uint64_t lines = 0, lost = 0;
  const absl::Status status = daemon.RecordTrace(request, [&](const v1::TraceRecord& record) {
    if (record.lost() > 0) {
      lost += record.lost();
      err << fmt::format("kvasirctl: {} requests are lost: they ran on, or this reader is slow\n",
                         record.lost())
          << std::flush;
      return true;
    }
    file << TraceLineOf(record) << std::flush;
    ++lines;
    return file.good();
  });
  if (!file) return Unavailable("the file cannot be written: output={} lines={}", line.file, lines);
  out << fmt::format("{} requests recorded, {} lost\n", lines, lost);
  return status;
}

}  // namespace kvasir::ctl
