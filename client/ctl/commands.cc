#include "client/ctl/commands.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/ctl/attack_command.h"
#include "client/ctl/completion.h"
#include "client/ctl/doctor.h"
#include "client/ctl/host_facts.h"
#include "client/ctl/render.h"
#include "client/ctl/terminal_text.h"
#include "client/ctl/top_command.h"
#include "client/ctl/trace_file.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::ctl {
namespace {

constexpr uint32_t kRowsPerCall = 4096;  // about 300 KiB, far below gRPC's 4 MiB
constexpr uint32_t kSequencesPerCall = 1000;

// All pages as one answer. A daemon that does not move on is an error, not an endless loop.
absl::StatusOr<v1::ListSequencesResponse> AllSequences(const CommandLine& line,
                                                       AdminClient& daemon) {
  v1::ListSequencesRequest request;
  request.set_tenant(line.tenant);
  request.set_page_size(kSequencesPerCall);
  v1::ListSequencesResponse all;
  do {
    KVASIR_ASSIGN_OR_RETURN(v1::ListSequencesResponse page, daemon.ListSequences(request));
    all.set_boot_epoch(page.boot_epoch());
    all.mutable_sequences()->MergeFrom(page.sequences());
    const uint64_t next = page.next_page_token();
    if (next != 0 && next <= request.page_token()) {
      return Internal("the daemon's list of sequences does not move on: page_token={}", next);
    }
    request.set_page_token(next);
  } while (request.page_token() != 0);
  return all;
}

absl::StatusOr<v1::InspectSequenceResponse> Inspect(const CommandLine& line, AdminClient& daemon) {
  v1::InspectSequenceRequest request;
  request.set_sequence_id(line.sequence_id);
  request.set_layer(line.layer);
  request.set_first_row(line.first_row);
  v1::InspectSequenceResponse all;
  uint32_t left = line.rows;
  while (left > 0) {
    request.set_max_rows(std::min(left, kRowsPerCall));
    KVASIR_ASSIGN_OR_RETURN(v1::InspectSequenceResponse page, daemon.InspectSequence(request));
    const auto got = static_cast<uint32_t>(std::max(page.rows_size(), page.prompt_size()));
    if (got > left) return Internal("more rows than asked for: rows={} max={}", got, left);
    left -= got;
    *all.mutable_info() = page.info();
    all.set_boot_epoch(page.boot_epoch());
    all.set_layers(page.layers());
    all.set_kv_heads(page.kv_heads());
    all.set_prompt_rows(page.prompt_rows());
    all.mutable_rows()->MergeFrom(page.rows());
    all.mutable_prompt()->MergeFrom(page.prompt());
    const uint64_t next = page.next_row();
    all.set_next_row(next);
    if (next == 0) break;
    if (next <= request.first_row()) {
      return Internal("the daemon's list of rows does not move on: next_row={}", next);
    }
    request.set_first_row(next);
  }
  return all;
}

absl::StatusOr<v1::SetTenantBudgetResponse> SetBudget(const CommandLine& line,
                                                      AdminClient& daemon) {
  v1::SetTenantBudgetRequest request;
  request.set_tenant(line.tenant);
  v1::Budget& budget = *request.mutable_budget();
  const auto set = [&line](auto& of) {
    if (line.reserved_bytes) of.set_reserved_bytes(*line.reserved_bytes);
    if (line.limit_bytes) of.set_limit_bytes(*line.limit_bytes);
    if (line.weight) of.set_weight(*line.weight);
  };
  if (line.device_pool.empty()) {
    set(budget);
  } else {
    budget.add_devices()->set_pool(line.device_pool);
    set(*budget.mutable_devices(0));
  }
  if (line.disk_reserved_bytes) budget.set_disk_reserved_bytes(*line.disk_reserved_bytes);
  if (line.disk_bytes) budget.set_disk_bytes(*line.disk_bytes);
  if (line.remote_bytes) budget.set_remote_bytes(*line.remote_bytes);
  if (line.sessions_max) budget.set_sessions_max(*line.sessions_max);
  if (line.sequences_max) budget.set_sequences_max(*line.sequences_max);
  if (line.models_max) budget.set_models_max(*line.models_max);
  if (line.snapshots_max) budget.set_snapshots_max(*line.snapshots_max);
  if (line.prefixes_max) budget.set_prefixes_max(*line.prefixes_max);
  return daemon.SetTenantBudget(request);
}

// The lookups of one sequence, or all.
absl::StatusOr<v1::ListPrefixLookupsResponse> Explain(const CommandLine& line,
                                                      AdminClient& daemon) {
  v1::ListPrefixLookupsRequest request;
  request.set_tenant(line.tenant);
  KVASIR_ASSIGN_OR_RETURN(v1::ListPrefixLookupsResponse all, daemon.ListPrefixLookups(request));
  if (line.sequence_id == 0) return all;
  v1::ListPrefixLookupsResponse one;
  one.set_boot_epoch(all.boot_epoch());
  for (const v1::PrefixLookup& lookup : all.lookups()) {
    if (lookup.sequence_id() == line.sequence_id) *one.add_lookups() = lookup;
  }
  if (one.lookups().empty()) {
    return NotFound("no prompt of this sequence is remembered: sequence={}", line.sequence_id);
  }
  return one;
}

// Each as it comes, so that a pipe can follow it.
absl::Status Watch(const CommandLine& line, AdminClient& daemon, std::ostream& out) {
  v1::WatchPrefixesRequest request;
  request.set_tenant(line.tenant);
  request.set_from_number(line.from_number);
  uint64_t taken = 0;
  return daemon.WatchPrefixes(request, [&](const v1::PrefixEvent& event) {
    out << (line.json ? RenderJsonLine(event) : RenderEvent(event)) << std::flush;
    return out.good() && ++taken != line.count;
  });
}

template <typename Response, typename Render>
absl::StatusOr<std::string> TextOf(const CommandLine& line, absl::StatusOr<Response> response,
                                   const Render& render) {
  if (!response.ok()) return response.status();
  return line.json ? RenderJson(*response) : render(*response);
}

// The text for stdout, and the exit code that goes with it.
struct Outcome {
  std::string text;
  int exit_code = kExitOk;
};

absl::StatusOr<Outcome> AskHealth(const CommandLine& line, AdminClient& daemon) {
  KVASIR_ASSIGN_OR_RETURN(std::string word, daemon.CheckHealth());
  const int exit_code = word == "SERVING" ? kExitOk : kExitFailed;
  if (line.json) word = nlohmann::json({{"status", word}}).dump();
  return Outcome{word + "\n", exit_code};
}

Outcome Examine(const CommandLine& line, AdminClient& daemon) {
  const std::vector<Diagnosis> list =
      Diagnose(GatherHostFacts(line.socket), DaemonFacts{daemon.GetStats(), daemon.GetHost()});
  return {line.json ? RenderDiagnosisJson(list) : RenderDiagnosis(list, line.color),
          WorstOf(list) == Health::kFail ? kExitFailed : kExitOk};
}

absl::StatusOr<Outcome> Execute(const CommandLine& line, AdminClient& daemon) {
  absl::StatusOr<std::string> text;
  switch (line.command) {
    case Command::kStats:
      text = TextOf(line, daemon.GetStats(), RenderStats);
      break;
    case Command::kTenants: {
      if (line.set_budget) {
        text = TextOf(line, SetBudget(line, daemon), [&line](const auto& response) {
          return RenderBudget(line.tenant, line.device_pool, response);
        });
        break;
      }
      const auto stats = daemon.GetStats();
      if (!stats.ok()) return stats.status();
      text = line.json ? RenderTenantsJson(*stats) : RenderTenants(*stats);
      break;
    }
    case Command::kSequences:
      text = TextOf(line, AllSequences(line, daemon), RenderSequences);
      break;
    case Command::kSnapshots: {
      v1::ListSnapshotsRequest request;
      request.set_tenant(line.tenant);
      text = TextOf(line, daemon.ListSnapshots(request), RenderSnapshots);
      break;
    }
    case Command::kPrefixes: {
      v1::ListPrefixesRequest request;
      request.set_tenant(line.tenant);
      text = TextOf(line, daemon.ListPrefixes(request), RenderPrefixes);
      break;
    }
    case Command::kExplain:
      text = TextOf(line, Explain(line, daemon), RenderLookups);
      break;
    case Command::kCurve: {
      v1::GetHitRateCurvesRequest request;
      request.set_tenant(line.tenant);
      text = TextOf(line, daemon.GetHitRateCurves(request), RenderCurves);
      break;
    }
    case Command::kTiers:
      text = TextOf(line, daemon.ListTiers(), RenderTiers);
      break;
    case Command::kDrain: {
      v1::DrainPrefixesRequest request;
      request.set_tenant(line.tenant);
      text = TextOf(line, daemon.DrainPrefixes(request), RenderDrain);
      break;
    }
    case Command::kEvict: {
      v1::DropPrefixesRequest request;
      request.set_tenant(line.tenant);
      text = TextOf(line, daemon.DropPrefixes(request), [](const auto& response) {
        return fmt::format("{} prefixes given up\n", response.dropped());
      });
      break;
    }
    case Command::kResize: {
      v1::SetPoolSizeRequest request;
      request.set_pool_bytes(line.pool_bytes);
      text = TextOf(line, daemon.SetPoolSize(request), RenderResize);
      break;
    }
    case Command::kTop:
    case Command::kEvents:
    case Command::kTrace:
      return Internal("what comes is written as it comes");
    case Command::kInspect:
      text = TextOf(line, Inspect(line, daemon), [&line](const auto& response) {
        return RenderInspection(response, line.layer, line.color);
      });
      break;
    case Command::kPolicies:
      text = TextOf(line, daemon.ListPolicies(), RenderPolicies);
      break;
    case Command::kDoctor:
      return Examine(line, daemon);
    case Command::kHealth:
      return AskHealth(line, daemon);
    case Command::kCompletion:
      text = std::string(kBashCompletion);
      break;
  }
  if (!text.ok()) return text.status();
  return Outcome{*std::move(text)};
}

}  // namespace

int RunCommand(const CommandLine& line, AdminClient& daemon, std::ostream& out, std::ostream& err) {
  absl::StatusOr<Outcome> outcome = Outcome();
  if (line.command == Command::kEvents) {
    if (absl::Status watched = Watch(line, daemon, out); !watched.ok()) outcome = watched;
  } else if (line.command == Command::kTop) {
    if (absl::Status done = RunTop(
            line, [&daemon] { return daemon.GetStats(); }, out);
        !done.ok()) {
      outcome = done;
    }
  } else if (line.command == Command::kTrace) {
    if (absl::Status done = RecordTrace(line, daemon, out, err); !done.ok()) outcome = done;
  } else {
    outcome = Execute(line, daemon);
  }
  if (!outcome.ok()) {
    err << "kvasirctl: " << EscapeForTerminal(MessageOf(outcome.status())) << "\n";
    return kExitFailed;
  }
  out << outcome->text << std::flush;
  if (out.good()) return outcome->exit_code;
  err << "kvasirctl: cannot write the result\n";  // a full disk, a closed pipe
  return kExitFailed;
}

int RunKvasirctl(std::vector<std::string> arguments, const Surroundings& surroundings,
                 std::ostream& out, std::ostream& err) {
  const auto parsed = ParseCommandLine(std::move(arguments), surroundings);
  if (const auto* end = std::get_if<EarlyEnd>(&parsed)) {
    (end->exit_code == kExitOk ? out : err) << end->text << std::flush;
    return end->exit_code;
  }
  const auto& line = std::get<CommandLine>(parsed);
  if (line.attack) {
    return RunAttack(
        line, [&line] { return NewAdminClient(line.socket, line.deadline); }, out, err);
  }
  const auto daemon = NewAdminClient(line.socket, line.deadline);
  return RunCommand(line, *daemon, out, err);
}

}  // namespace kvasir::ctl
