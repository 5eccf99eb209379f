// r.KV of a file of prompts: of all the tokens that the last generated token could see, the share
// that each retention policy lets it see, summed over the prompts (SepLLM, arXiv 2412.12094,
// section 5). The counts come from the policies' own tables, not from a formula.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bench/report.h"
#include "policies/policy_registry.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::bench {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<TokenId>;

struct Prompts {
  std::vector<Ids> streams;  // prompt, answer and stop string of each item
  Ids separators;
  uint64_t init = 0;
  uint64_t window = 0;
};

Ids Join(const std::vector<Ids>& parts) {
  Ids all;
  for (const Ids& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// Throws std::exception with a text for people when the file is not of the format.
Prompts Load(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot open");
  const Json root = Json::parse(file);
  Prompts prompts;
  prompts.separators = root.at("separators_training_free").get<Ids>();
  prompts.init = root.at("a").get<uint64_t>();
  prompts.window = root.at("n").get<uint64_t>();
  const Ids prefix = root.at("prefix").get<Ids>();
  const Ids stop = root.at("stop_ids").get<Ids>();
  for (const Json& item : root.at("items")) {
    prompts.streams.push_back(
        Join({prefix, item.at("q").get<Ids>(), item.at("answer").get<Ids>(), stop}));
  }
  if (prompts.streams.empty()) throw std::runtime_error(path + ": no items");
  return prompts;
}

// Rows that the query of the last row sees, by the tables that the policy returns.
uint64_t VisibleToLast(RetentionPolicy& policy, const Ids& ids) {
  const uint64_t query = ids.size() - 1;
  const PlanHorizon horizon;
  RetentionPlan table;  // the last one in force for the query
  uint64_t kept = 0;
  const auto take = [&] {
    while (auto plan = policy.NextPlan(horizon)) {
      if (plan->from_row > query) continue;
      kept = kept + plan->append.size() - plan->drop.size();
      table = std::move(*plan);
    }
  };
  take();
  for (const TokenId id : ids) {
    policy.Append({&id, 1});
    take();
  }
  const uint64_t low =
      table.window == 0 || ids.size() < table.window ? 0 : ids.size() - table.window;
  const uint64_t first = std::max(low, table.recent_first);
  const auto sticky = std::count_if(table.sticky.begin(), table.sticky.end(),
                                    [first](uint64_t row) { return row < first; });
  return kept + static_cast<uint64_t>(sticky) + ids.size() - first;
}

struct Setting {
  std::string name;
  std::string spec;
  double paper = 0;  // percent, tables 16 and 17
};

Row Measure(const Prompts& prompts, const Setting& setting) {
  uint64_t visible = 0;
  uint64_t total = 0;
  PolicyContext context;
  context.separators = prompts.separators;
  std::string spec;
  for (const Ids& ids : prompts.streams) {
    absl::StatusOr<PolicyLanes> lanes = MakeLanes(setting.spec, context);
    if (!lanes.ok()) throw std::runtime_error(MessageOf(lanes.status()));
    spec = lanes->spec;
    visible += VisibleToLast(*lanes->lanes.at(0), ids);
    total += ids.size();
  }
  Row row;
  row.name = setting.name;
  row.value = 100.0 * static_cast<double>(visible) / static_cast<double>(total);
  row.unit = "percent";
  row.reference = setting.paper;
  row.better = Better::kLower;
  row.extra = {{"rkv", fmt::format("{:.2f}", row.value)},
               {"visible", visible},
               {"total", total},
               {"prompts", prompts.streams.size()},
               {"retention", spec}};
  return row;
}

int Main(int argc, char** argv) {
  CLI::App app("r.KV of a file of prompts under SepLLM, FixLLM and StreamingLLM");
  std::string path = KVASIR_RKV_DEFAULT;
  const char* const wanted = std::getenv("KVASIR_BENCH_JSON");
  std::string json = wanted != nullptr ? wanted : "build/bench/rkv.json";
  app.add_option("FILE", path, "prompts as token ids (JSON)")->capture_default_str();
  app.add_option("--json", json, "where the report goes")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const Prompts prompts = Load(path);
    const std::string sepllm = fmt::format("sepllm:form=static,init_cache_size={},local_size={}",
                                           prompts.init, prompts.window);
    const std::string streaming =
        fmt::format("streamingllm:start_size={},recent_size=380,positions=original", prompts.init);
    Report report;
    const std::string name =
        fmt::format("SepLLM n={}, {} separators", prompts.window, prompts.separators.size());
    report.Add(Measure(prompts, {"full", "full", 100.0}));
    report.Add(Measure(prompts, {"StreamingLLM n=380", streaming, 47.54}));
    report.Add(Measure(prompts, {name, sepllm, 47.36}));
    // Table 17: one token of every delta instead of the separators.
    for (const auto& [delta, paper] : {std::pair(5, 45.64), std::pair(4, 49.08)}) {
      const std::string fixllm = fmt::format("fixllm:init_cache_size={},local_size={},delta={}",
                                             prompts.init, prompts.window, delta);
      report.Add(Measure(prompts, {fmt::format("FixLLM {}", delta), fixllm, paper}));
    }
    const absl::Status written = report.Write(json);
    if (!written.ok()) throw std::runtime_error(MessageOf(written));
    fmt::print("r.KV of {} (reference: the paper)\n{}{}\n", path, report.ToTable(), json);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_rkv: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) { return kvasir::bench::Main(argc, argv); }
