// What the parity tests over a daemon share: the policies and what their oracles say, and two
// stores compared row by row.
#ifndef KVASIR_TESTS_ENGINE_DAEMON_PARITY_SUPPORT_H_
#define KVASIR_TESTS_ENGINE_DAEMON_PARITY_SUPPORT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/forwarding_store.h"
#include "engine/kvasir_kv_store.h"
#include "tests/engine/engine_support.h"
#include "tests/engine/oracle_tables.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::engine::testing {

// One policy as its spec and as its oracle.
struct PolicyCase {
  std::string name;
  std::string retention;
  uint64_t prompt_rows = 0;
  std::function<Oracle(uint32_t layers, std::span<const TokenId> separators,
                       std::span<const TokenId> ids)>
      oracle;
};
void PrintTo(const PolicyCase& one, std::ostream* out);

// `init` / `local` / ... of the layers: the first half of them has the first setting, the rest the
// second one.
PolicyCase StaticCase(uint64_t init, uint64_t local, uint64_t other_local, uint32_t layers);
PolicyCase StreamCase(const StreamSetting& setting, const StreamSetting& other, uint32_t layers,
                      uint64_t prompt_rows);
PolicyCase StreamingLlmCase(uint64_t start, uint64_t recent, bool in_cache);

// Counts how often each layer's table lets go of rows; hands everything on to `store`.
class WatchedStore final : public ForwardingStore {
 public:
  explicit WatchedStore(std::unique_ptr<KvasirKvStore> store)
      : ForwardingStore(*store), store_(std::move(store)) {}

  absl::StatusOr<StepView> Begin(uint32_t want) override;
  const Sequence& sequence() const { return store_->sequence(); }
  // Of the layer that let go least often.
  uint32_t Compactions() const;

 private:
  std::unique_ptr<KvasirKvStore> store_;
  std::vector<uint64_t> recent_first_;
  std::vector<uint32_t> compactions_;
};

// A daemon in this process, and stores of F32 rows over it.
class DaemonParity : public kvasir::testing::DaemonFixture {
 protected:
  // Starts a daemon with a pool of `pool_bytes` and loads the model at `path` with F32 weights.
  void StartDaemon(uint64_t pool_bytes, const std::string& retention = "full");
  void LoadModel(const std::string& path);
  void TearDown() override;

  std::unique_ptr<WatchedStore> MakeStore(const std::string& retention, uint64_t prompt_rows = 0,
                                          kernels::RowType type = kernels::RowType::kF32);
  // As the client library would name them to the daemon.
  std::vector<uint32_t> Separators() const;
  uint32_t layers() const { return model_->parameters().layers; }

  // Computes `tokens` through both stores and compares the logits of all rows. Every fourth stretch
  // of 64 rows is computed row by row, the others in batches of `batch`.
  Difference Compare(KvStore& ours, KvStore& reference, std::span<const uint32_t> tokens,
                     uint32_t batch);

  std::unique_ptr<GgufModel> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<LlamaEngine> engine_;  // F32 rows
};

// The number behind "rollback_floor=" in an error; fails the test where there is none.
uint64_t FloorNamedIn(const absl::Status& status);

}  // namespace kvasir::engine::testing

#endif  // KVASIR_TESTS_ENGINE_DAEMON_PARITY_SUPPORT_H_
