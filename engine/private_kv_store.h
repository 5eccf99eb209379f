// PrivateKvStore: K and V rows in this process's own anonymous memory, everything kept.
//
// The yardstick for the shared-memory store: the same block groups, [layer][K plane | V plane], on
// pages of 4 KiB (huge pages switched off), so that a difference in speed is the sharing's alone.
#ifndef KVASIR_ENGINE_PRIVATE_KV_STORE_H_
#define KVASIR_ENGINE_PRIVATE_KV_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "engine/kv_store.h"

namespace kvasir::engine {

class PrivateKvStore final : public KvStore {
 public:
  // Room for `max_rows` rows; memory is taken a group of slots_per_block rows at a time.
  // Errors: kInvalidArgument for an empty geometry or a group above 1 GiB.
  static absl::StatusOr<std::unique_ptr<PrivateKvStore>> Create(const KvGeometry& geometry,
                                                                uint64_t max_rows);

  PrivateKvStore(const PrivateKvStore&) = delete;
  PrivateKvStore& operator=(const PrivateKvStore&) = delete;
  ~PrivateKvStore() override;

  uint64_t rows() const override { return rows_; }
  absl::StatusOr<StepView> Begin(uint32_t want) override;
  absl::Status Commit(std::span<const uint32_t> token_ids) override;
  absl::Status Truncate(uint64_t row) override;
  absl::StatusOr<KvUsage> Usage() override;
  absl::Status Close() override;

 private:
  PrivateKvStore(const KvGeometry& geometry, uint64_t max_rows, uint64_t block_bytes);
  absl::Status AddGroup();
  void FreeGroups();

  const KvGeometry geometry_;
  const uint64_t max_rows_;
  const uint64_t block_bytes_;  // of one layer, 64-byte multiple
  const uint64_t group_bytes_;  // page multiple

  uint64_t rows_ = 0;
  uint32_t step_rows_ = 0;
  bool closed_ = false;
  std::vector<std::byte*> groups_;
  std::vector<std::vector<RecentBlockView>> blocks_;  // [layer][group]
  std::vector<LayerView> layers_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_PRIVATE_KV_STORE_H_
