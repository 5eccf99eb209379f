#include "tests/engine/daemon_parity_support.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"

#include <fmt/format.h>

namespace kvasir::engine::testing {
namespace {

// "A" for all layers, or "AxN/BxM".
std::string PerLayer(int64_t first, int64_t second, uint32_t layers) {
  if (first == second) return fmt::format("{}", first);
  return fmt::format("{}x{}/{}x{}", first, layers / 2, second, layers - layers / 2);
}

// `first` for the first half of the layers, `second` for the rest.
Oracle Halves(std::shared_ptr<const LayerOracle> first, std::shared_ptr<const LayerOracle> second,
              uint32_t layers) {
  Oracle oracle(layers, std::move(second));
  std::fill_n(oracle.begin(), layers / 2, first);
  return oracle;
}

}  // namespace

void PrintTo(const PolicyCase& one, std::ostream* out) { *out << one.retention; }

PolicyCase StaticCase(uint64_t init, uint64_t local, uint64_t other_local, uint32_t layers) {
  PolicyCase one;
  one.name = local == other_local ? "StaticUniform" : "StaticPerLayer";
  one.retention =
      fmt::format("sepllm:form=static,init_cache_size={},local_size={}", init,
                  PerLayer(static_cast<int64_t>(local), static_cast<int64_t>(other_local), layers));
  one.oracle = [=](uint32_t count, std::span<const TokenId> separators,
                   std::span<const TokenId> ids) {
    return Halves(StaticOracle(init, local, separators, ids),
                  StaticOracle(init, other_local, separators, ids), count);
  };
  return one;
}

PolicyCase StreamCase(const StreamSetting& setting, const StreamSetting& other, uint32_t layers,
                      uint64_t prompt_rows) {
  PolicyCase one;
  one.name = fmt::format("{}{}{}", setting.manager ? "Manager" : "SepCache",
                         setting.local == other.local ? "Uniform" : "PerLayer",
                         setting.in_cache ? "InCache" : "");
  one.prompt_rows = prompt_rows;
  one.retention = fmt::format(
      "sepllm:form={},init_cache_size={},sep_cache_size={},local_size={},cache_size={},positions={"
      "}",
      setting.manager ? "manager" : "sepcache", PerLayer(setting.init, other.init, layers),
      PerLayer(setting.separators, other.separators, layers),
      PerLayer(setting.local, other.local, layers), PerLayer(setting.cache, other.cache, layers),
      setting.in_cache ? "in_cache" : "original");
  one.oracle = [=](uint32_t count, std::span<const TokenId> separators,
                   std::span<const TokenId> ids) {
    return Halves(StreamOracle(setting, prompt_rows, separators, ids),
                  StreamOracle(other, prompt_rows, separators, ids), count);
  };
  return one;
}

PolicyCase StreamingLlmCase(uint64_t start, uint64_t recent, bool in_cache) {
  PolicyCase one;
  one.name = in_cache ? "StreamingLlmInCache" : "StreamingLlm";
  one.retention = fmt::format("streamingllm:start_size={},recent_size={},positions={}", start,
                              recent, in_cache ? "in_cache" : "original");
  one.oracle = [=](uint32_t count, std::span<const TokenId>, std::span<const TokenId>) {
    return Oracle(count, StreamingLlmOracle(start, recent, in_cache));
  };
  return one;
}

absl::StatusOr<StepView> WatchedStore::Begin(uint32_t want) {
  absl::StatusOr<StepView> step = ForwardingStore::Begin(want);
  if (!step.ok()) return step;
  recent_first_.resize(step->layers.size());
  compactions_.resize(step->layers.size());
  for (size_t i = 0; i < step->layers.size(); ++i) {
    if (step->layers[i].recent_first > recent_first_[i]) ++compactions_[i];
    recent_first_[i] = step->layers[i].recent_first;
  }
  return step;
}

uint32_t WatchedStore::Compactions() const {
  return compactions_.empty() ? 0 : *std::min_element(compactions_.begin(), compactions_.end());
}

void DaemonParity::StartDaemon(uint64_t pool_bytes, const std::string& retention) {
  Config config = MakeConfig();
  config.tenants[0].retention = retention;
  config.memory.pool_bytes = pool_bytes;
  config.tenants[0].limit_bytes = pool_bytes;
  StartServer(config);
}

void DaemonParity::LoadModel(const std::string& path) {
  model_ = std::make_unique<GgufModel>(ValueOrDie(GgufModel::Load(path, WeightsMode::kF32)));
  tokenizer_ = std::make_unique<Tokenizer>(ValueOrDie(Tokenizer::Load(path)));
  engine_ = ValueOrDie(LlamaEngine::Create(*model_, {.kv_type = kernels::RowType::kF32}));
}

void DaemonParity::TearDown() {
  if (!IsSkipped()) DaemonFixture::TearDown();
}

std::unique_ptr<WatchedStore> DaemonParity::MakeStore(const std::string& retention,
                                                      uint64_t prompt_rows, kernels::RowType type) {
  KvasirStoreOptions options;
  options.connect = MakeConnectOptions();
  options.kv_type = type;
  options.retention = retention;
  options.prompt_rows = prompt_rows;
  options.label = "parity";
  options.expanded_weights = true;
  return std::make_unique<WatchedStore>(
      ValueOrDie(KvasirKvStore::Create(*model_, *tokenizer_, options)));
}

std::vector<uint32_t> DaemonParity::Separators() const {
  return ValueOrDie(ModelSpecOf(*model_, *tokenizer_, {})).separator_token_ids;
}

Difference DaemonParity::Compare(KvStore& ours, KvStore& reference,
                                 std::span<const uint32_t> tokens, uint32_t batch) {
  constexpr size_t kStretch = 64;
  Difference difference;
  for (size_t at = 0; at < tokens.size(); at += kStretch) {
    const auto part = tokens.subspan(at, std::min(kStretch, tokens.size() - at));
    const uint32_t rows = at / kStretch % 4 == 3 ? 1 : batch;
    const std::vector<float> logits = ComputeAll(*engine_, ours, part, rows);
    difference.Add(logits, ComputeAll(*engine_, reference, part, rows),
                   model_->parameters().vocabulary);
  }
  return difference;
}

uint64_t FloorNamedIn(const absl::Status& status) {
  const std::string text = MessageOf(status);
  const std::string key = "rollback_floor=";
  const size_t at = text.find(key);
  EXPECT_NE(at, std::string::npos) << text;
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + key.size(), nullptr, 10);
}

}  // namespace kvasir::engine::testing
