// Runs every golden vector file of a folder through the state machines: all that a file states is
// checked. Folder: environment variable KVASIR_GOLDEN_DIR, else the project's own copies. A folder
// without vectors, a file without cases and a malformed line are errors (exit 1); one that holds
// vectors of selection alone is not.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "policies/sep_static.h"
#include "policies/sep_stream.h"
#include "tests/policies/golden_set.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::vector<TokenId>>;

constexpr size_t kMostCompactSteps = 50;  // a file lists no more of them

class Fnv1a64 {
 public:
  void Add(uint64_t value) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash_ = (hash_ ^ ((value >> shift) & 0xff)) * 0x100000001b3ULL;
    }
  }
  std::string Hex() const { return fmt::format("{:016x}", hash_); }

 private:
  uint64_t hash_ = 0xcbf29ce484222325ULL;
};

template <typename A, typename B>
void Equal(const std::string& what, const A& got, const B& want) {
  if (!(got == static_cast<A>(want))) {
    throw std::runtime_error(fmt::format("{}: got {}, want {}", what, Json(got).dump(),
                                         Json(static_cast<A>(want)).dump()));
  }
}

std::vector<uint64_t> Expand(const Json& runs) {
  std::vector<uint64_t> rows;
  for (const Json& run : runs) {
    const uint64_t first = run.at(0).get<uint64_t>();
    const uint64_t count = run.at(1).get<uint64_t>();
    for (uint64_t i = 0; i < count; ++i) rows.push_back(first + i);
  }
  return rows;
}

SeparatorSet Separators(const Json& cfg) {
  std::vector<TokenId> ids;
  for (const int64_t id : cfg.at("seps").get<std::vector<int64_t>>()) {
    if (id >= 0) ids.push_back(static_cast<TokenId>(id));  // -1: a set that nothing is in
  }
  return SeparatorSet(std::move(ids));
}

std::optional<TokenId> PadId(const Json& cfg) {
  if (cfg.at("pad_id").is_null()) return std::nullopt;
  return cfg.at("pad_id").get<TokenId>();
}

SepStreamConfig StreamConfig(const Json& cfg) {
  SepStreamConfig config;
  const std::string variant = cfg.at("variant").get<std::string>();
  if (variant == "sepcache") {
    config.variant = SepStreamVariant::kSepCache;
  } else if (variant == "manager") {
    config.variant = SepStreamVariant::kManager;
  } else if (variant == "streamllm") {
    config.variant = SepStreamVariant::kStreamLlm;
  } else {
    throw std::runtime_error("unknown variant " + variant);
  }
  config.a = cfg.at("a").get<int64_t>();
  config.s = cfg.at("s").get<int64_t>();
  config.w = cfg.at("w").get<int64_t>();
  config.c = cfg.at("c").get<int64_t>();
  config.accumulate = cfg.at("accumulate").get<bool>();
  config.use_max = cfg.at("use_max").get<bool>();
  config.pad_in_batch = cfg.at("pad_in_batch").get<bool>();
  config.pad_id = PadId(cfg);
  config.separators = Separators(cfg);
  return config;
}

struct StreamTotals {
  Fnv1a64 hash;
  uint64_t kept = 0;
  uint64_t seen = 0;
  std::vector<int64_t> compacted;
};

void CheckStep(const Json& check, const SepStream& stream, size_t rows) {
  const std::string at = fmt::format("step {}", check.at("step").get<int64_t>());
  Equal(at + " attend_len", stream.attend_length(), check.at("attend_len").get<int64_t>());
  Equal(at + " batch rows", check.at("kept_runs").size(), rows);
  for (size_t b = 0; b < rows; ++b) {
    Equal(fmt::format("{} kept_runs[{}]", at, b), stream.KeptRows(b),
          Expand(check.at("kept_runs").at(b)));
  }
}

void CheckStreamEnd(const Json& test, const SepStream& stream, const StreamTotals& totals) {
  std::vector<int64_t> steps = totals.compacted;
  Equal("n_compactions", steps.size(), test.at("n_compactions").get<size_t>());
  steps.resize(std::min(steps.size(), kMostCompactSteps));
  Equal("compact_steps", steps, test.at("compact_steps").get<std::vector<int64_t>>());
  Equal("fnv1a64", totals.hash.Hex(), test.at("fnv1a64").get<std::string>());
  if (!test.at("error").is_null()) return;  // the end state after an error means nothing
  const Json& final = test.at("final");
  Equal("final s", stream.s(), final.at("s").get<int64_t>());
  Equal("final c", stream.c(), final.at("c").get<int64_t>());
  Equal("final sep_end", stream.separator_end(), final.at("sep_end").get<int64_t>());
  Equal("final kept_sum", totals.kept, final.at("kept_sum").get<uint64_t>());
  Equal("final seen_sum", totals.seen, final.at("seen_sum").get<uint64_t>());
}

void RunStream(const Json& test) {
  const auto ids = test.at("ids").get<Ids>();
  SepStream stream(StreamConfig(test.at("cfg")), ids.size());
  StreamTotals totals;
  size_t at = 0;
  int64_t step = 0;
  auto check = test.at("checks").begin();
  const Json& error = test.at("error");
  for (const Json& entry : test.at("chunks")) {
    const auto length = entry.at(0).get<size_t>();
    for (auto repeat = entry.at(2).get<int64_t>(); repeat > 0; --repeat, ++step, at += length) {
      Ids chunk;
      for (const auto& row : ids) {
        if (row.size() < at + length) throw std::runtime_error("chunks are longer than ids");
        const auto from = row.begin() + static_cast<std::ptrdiff_t>(at);
        chunk.emplace_back(from, from + static_cast<std::ptrdiff_t>(length));
      }
      const uint64_t before = stream.compactions();
      const absl::Status status = stream.Step(chunk, entry.at(1).get<int64_t>() != 0);
      if (!status.ok()) {
        Equal(fmt::format("step of the error ({})", MessageOf(status)), step,
              error.is_null() ? int64_t{-1} : error.at(0).get<int64_t>());
        Equal("steps_ok", step, test.at("steps_ok").get<int64_t>());
        CheckStreamEnd(test, stream, totals);
        return;
      }
      if (stream.compactions() != before) totals.compacted.push_back(step);
      totals.kept += static_cast<uint64_t>(stream.kept_length());
      totals.seen += stream.seen();
      for (size_t b = 0; b < ids.size(); ++b) {
        const std::vector<uint64_t> kept = stream.KeptRows(b);
        totals.hash.Add(static_cast<uint64_t>(stream.attend_length()));
        totals.hash.Add(kept.size());
        for (const uint64_t row : kept) totals.hash.Add(row);
      }
      if (check != test.at("checks").end() && check->at("step").get<int64_t>() == step) {
        CheckStep(*check, stream, ids.size());
        ++check;
      }
    }
  }
  if (!error.is_null()) throw std::runtime_error("no error at step " + error.at(0).dump());
  if (check != test.at("checks").end()) throw std::runtime_error("a check was not reached");
  Equal("steps_ok", step, test.at("steps_ok").get<int64_t>());
  CheckStreamEnd(test, stream, totals);
}

SepStaticConfig StaticConfig(const Json& cfg, uint64_t window) {
  SepStaticConfig config;
  config.init = cfg.at("a").get<uint64_t>();
  config.window = window;
  config.prefill_window = window;
  config.prefill_len = cfg.at("prefill_len").get<uint64_t>();
  config.pad_id = PadId(cfg);
  config.adaptive_init = cfg.at("adaptive_init").get<bool>();
  const std::string mask = cfg.at("prefill_base_mask").get<std::string>();
  if (mask != "causal" && mask != "causal+pad") throw std::runtime_error("unknown mask " + mask);
  config.prefill_hides_padding = mask == "causal+pad";
  config.separators = Separators(cfg);
  return config;
}

void RunStatic(const Json& test) {
  const auto ids = test.at("ids").get<Ids>();
  const auto windows = test.at("cfg").at("n_per_layer").get<std::vector<uint64_t>>();
  Fnv1a64 hash;
  uint64_t visible = 0;
  uint64_t triangle = 0;
  size_t checked = 0;
  for (size_t layer = 0; layer < windows.size(); ++layer) {
    for (size_t b = 0; b < ids.size(); ++b) {
      const SepStaticRule rule(StaticConfig(test.at("cfg"), windows[layer]), ids[b]);
      for (uint64_t i = 0; i < ids[b].size(); ++i) {
        const std::vector<uint64_t> rows = rule.Visible(i, ids[b]);
        uint64_t sum = 0;
        for (const uint64_t row : rows) sum += row;
        hash.Add(rows.size());
        hash.Add(sum);
        visible += rows.size();
        triangle += i + 1;
        for (const Json& check : test.at("checks")) {
          if (check.at("layer") != layer || check.at("row") != b || check.at("i") != i) continue;
          Equal(fmt::format("layer {} row {} query {}", layer, b, i), rows,
                Expand(check.at("vis_runs")));
          ++checked;
        }
      }
    }
  }
  Equal("checks reached", checked, test.at("checks").size());
  Equal("visible_total", visible, test.at("visible_total").get<uint64_t>());
  Equal("lower_triangle_total", triangle, test.at("lower_triangle_total").get<uint64_t>());
  Equal("fnv1a64", hash.Hex(), test.at("fnv1a64").get<std::string>());
}

// Cases of a file. Throws at the first one that fails, with file, line and id.
int64_t RunFile(const std::filesystem::path& path, bool streaming) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(fmt::format("{}: cannot open", path.string()));
  int64_t cases = 0;
  int64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    std::string id = "?";
    try {
      const Json test = Json::parse(line);
      id = test.at("id").get<std::string>();
      streaming ? RunStream(test) : RunStatic(test);
    } catch (const std::exception& error) {
      throw std::runtime_error(
          fmt::format("{}:{}: case {}: {}", path.string(), number, id, error.what()));
    }
    ++cases;
  }
  if (cases == 0) throw std::runtime_error(fmt::format("{}: no cases", path.string()));
  return cases;
}

int Main() {
  try {
    const testing::GoldenFolder folder = testing::FindGoldenFiles(KVASIR_GOLDEN_DEFAULT);
    if (folder.retention.empty()) fmt::print("no *.jsonl in the folder: nothing of retention\n");
    int failed = 0;
    for (const auto& path : folder.retention) {
      const std::string name = path.filename().string();
      try {
        const bool streaming = name.find("stream") != std::string::npos;
        fmt::print("{}: {} cases\n", name, RunFile(path, streaming));
      } catch (const std::exception& error) {
        fmt::print(stderr, "FAILED {}\n", error.what());
        ++failed;
      }
    }
    return failed == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace kvasir

int main() { return kvasir::Main(); }
