#include "bench/engine_system_calls.h"

#include <errno.h>
#include <system_error>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "bench/daemon_process.h"
#include "bench/decode_variants.h"
#include "engine/kvasir_kv_store.h"
#include "engine/private_kv_store.h"

#include <fmt/format.h>
#include <stdlib.h>

namespace kvasir::bench {
namespace {

constexpr uint64_t kContext = 1024;
constexpr uint32_t kBlockRows = 64, kWarmSteps = 8, kSteps = 32;
static_assert(kContext % kBlockRows == 0 && kWarmSteps + kSteps < kBlockRows);
// Names that no file has: a look for one is a line in the trace.
constexpr char kFirst[] = "/kvasir-steps-begin", kLast[] = "/kvasir-steps-end";

using Counts = std::map<std::string, uint64_t>;

absl::StatusOr<Counts> CountsOf(const std::string& trace) {
  std::ifstream lines(trace);
  Counts counts;
  bool between = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.find(kLast) != std::string::npos) return counts;
    const size_t end = line.find('(');
    if (between && end != std::string::npos) ++counts[line.substr(0, end)];
    if (line.find(kFirst) != std::string::npos) between = true;
  }
  return Internal("the trace has no marks: path={}", trace);
}

absl::StatusOr<Counts> Trace(const std::string& model, const std::string& memory,
                             const std::string& folder) {
  const std::string trace = folder + "/" + memory;
  // Without -f: of the thread that computes. Those of the client's library wait for the daemon.
  const std::string command = fmt::format("strace -qq -o '{}' /proc/{}/exe {} {} --model '{}' >&2",
                                          trace, ::getpid(), kWalkOption, memory, model);
  if (std::system(command.c_str()) != 0) return Internal("failed: {}", command);
  return CountsOf(trace);
}

}  // namespace

absl::Status Walk(const std::string& path, const std::string& memory) {
  KVASIR_ASSIGN_OR_RETURN(engine::GgufModel model,
                          engine::GgufModel::Load(path, engine::WeightsMode::kAsStored));
  KVASIR_ASSIGN_OR_RETURN(engine::Tokenizer tokenizer, engine::Tokenizer::Load(path));
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<engine::LlamaEngine> engine,
                          engine::LlamaEngine::Create(model, {.threads = 1}));
  std::unique_ptr<DaemonProcess> daemon;
  std::unique_ptr<engine::KvStore> store;
  if (memory == "private") {
    const engine::KvGeometry geometry =
        engine::GeometryOf(model.parameters(), kernels::RowType::kF16, kBlockRows);
    KVASIR_ASSIGN_OR_RETURN(store, engine::PrivateKvStore::Create(geometry, kContext + kBlockRows));
  } else if (memory == "kvasir") {
    KVASIR_ASSIGN_OR_RETURN(daemon, DaemonProcess::Start(512 * kMiB, 256 * kMiB));
    engine::KvasirStoreOptions options;
    options.connect = daemon->connect_options();
    options.label = "walk";
    options.retention = "full";
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<engine::KvasirKvStore> kvasir,
                            engine::KvasirKvStore::Create(model, tokenizer, options));
    if (kBlockRows % kvasir->sequence().slots_per_block() != 0) {
      return Internal("blocks of another size: slots={}", kvasir->sequence().slots_per_block());
    }
    store = std::move(kvasir);
  } else {
    return InvalidArgument("no such memory: {}", memory);
  }
  const std::unique_ptr<DecodeVariant> variant = MakeStoreVariant(*engine, std::move(store), 0);
  KVASIR_RETURN_IF_ERROR(variant->FillTo(kContext));
  for (uint32_t i = 0; i < kWarmSteps; ++i) KVASIR_RETURN_IF_ERROR(variant->Step());
  (void)::access(kFirst, F_OK);
  for (uint32_t i = 0; i < kSteps; ++i) KVASIR_RETURN_IF_ERROR(variant->Step());
  (void)::access(kLast, F_OK);
  return absl::OkStatus();
}

absl::Status CountSystemCalls(const std::string& model, Report& report) {
  if (std::system("command -v strace >/dev/null") != 0) return NotFound("there is no strace here");
  std::string folder = (std::filesystem::temp_directory_path() / "kvasir-strace-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return ErrnoStatus(errno, "mkdtemp");
  const absl::StatusOr<Counts> theirs = Trace(model, "private", folder);
  const absl::StatusOr<Counts> ours = theirs.ok() ? Trace(model, "kvasir", folder) : theirs;
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  KVASIR_RETURN_IF_ERROR(ours.status());
  std::set<std::string> names;
  for (const Counts* counts : {&*ours, &*theirs}) {
    for (const auto& [name, count] : *counts) names.insert(name);
  }
  double all_ours = 0, all_theirs = 0;
  const auto add = [&report](const std::string& name, double value, double reference) {
    Row row;
    row.name = fmt::format("system calls of {} steps between borders/{}", kSteps, name);
    row.value = value;
    row.unit = "calls";
    row.reference = reference;
    row.reference_name = "private";
    row.goal = "as many";
    row.extra = {{"context", kContext}};
    report.Add(std::move(row));
  };
  for (const std::string& name : names) {
    const auto count = [&name](const Counts& counts) {
      const auto found = counts.find(name);
      return found == counts.end() ? 0.0 : static_cast<double>(found->second);
    };
    add(name, count(*ours), count(*theirs));
    all_ours += count(*ours);
    all_theirs += count(*theirs);
  }
  add("all", all_ours, all_theirs);
  return absl::OkStatus();
}

}  // namespace kvasir::bench
