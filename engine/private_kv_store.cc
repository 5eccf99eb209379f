#include "engine/private_kv_store.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"

namespace kvasir::engine {
namespace {

constexpr uint64_t kBlockAlignment = 64;
constexpr uint64_t kGroupBytesMax = kGiB;

}  // namespace

absl::StatusOr<std::unique_ptr<PrivateKvStore>> PrivateKvStore::Create(const KvGeometry& geometry,
                                                                       uint64_t max_rows) {
  if (geometry.layers == 0 || geometry.slots_per_block == 0 || geometry.k_row_bytes == 0 ||
      geometry.v_row_bytes == 0 || max_rows == 0) {
    return InvalidArgument(
        "KV geometry must not be empty: layers={} slots_per_block={} k_row_bytes={} v_row_bytes={} "
        "max_rows={}",
        geometry.layers, geometry.slots_per_block, geometry.k_row_bytes, geometry.v_row_bytes,
        max_rows);
  }
  const uint64_t row_bytes = uint64_t{geometry.k_row_bytes} + geometry.v_row_bytes;
  uint64_t block_bytes = 0;
  uint64_t group_bytes = 0;
  if (!CheckedMultiply(row_bytes, geometry.slots_per_block, &block_bytes) ||
      block_bytes > kGroupBytesMax ||
      !CheckedMultiply(RoundUp(block_bytes, kBlockAlignment), geometry.layers, &group_bytes) ||
      group_bytes > kGroupBytesMax) {
    return InvalidArgument("KV block group is too large: slots_per_block={} layers={} max_bytes={}",
                           geometry.slots_per_block, geometry.layers, kGroupBytesMax);
  }
  return std::unique_ptr<PrivateKvStore>(
      new PrivateKvStore(geometry, max_rows, RoundUp(block_bytes, kBlockAlignment)));
}

PrivateKvStore::PrivateKvStore(const KvGeometry& geometry, uint64_t max_rows, uint64_t block_bytes)
    : geometry_(geometry),
      max_rows_(max_rows),
      block_bytes_(block_bytes),
      group_bytes_(RoundUp(block_bytes * geometry.layers, kPageBytes)),
      blocks_(geometry.layers),
      layers_(geometry.layers) {}

PrivateKvStore::~PrivateKvStore() { FreeGroups(); }

void PrivateKvStore::FreeGroups() {
  for (std::byte* group : groups_) ::munmap(group, group_bytes_);
  groups_.clear();
  for (auto& blocks : blocks_) blocks.clear();
}

absl::Status PrivateKvStore::AddGroup() {
  void* address =
      ::mmap(nullptr, group_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return ErrnoStatus(errno, "mmap of a private KV group");
  // Refused by kernels without huge pages, where there is nothing to switch off.
  (void)::madvise(address, group_bytes_, MADV_NOHUGEPAGE);
  auto* group = static_cast<std::byte*>(address);
  groups_.push_back(group);
  const uint64_t v_offset = uint64_t{geometry_.k_row_bytes} * geometry_.slots_per_block;
  for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
    std::byte* block = group + layer * block_bytes_;
    blocks_[layer].push_back({.k = block, .v = block + v_offset});
  }
  return absl::OkStatus();
}

absl::StatusOr<StepView> PrivateKvStore::Begin(uint32_t want) {
  step_rows_ = 0;
  if (closed_) return FailedPrecondition("private KV store is closed");
  if (want == 0) return InvalidArgument("want out of bounds: want=0 min=1");
  if (rows_ >= max_rows_) {
    return OutOfRange("context is full: rows={} max_rows={}", rows_, max_rows_);
  }
  const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(want, max_rows_ - rows_));
  while (groups_.size() * uint64_t{geometry_.slots_per_block} < rows_ + count) {
    KVASIR_RETURN_IF_ERROR(AddGroup());
  }
  for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
    LayerView& view = layers_[layer];
    view.recent = blocks_[layer];
    view.slots_per_block = geometry_.slots_per_block;
    view.k_stride = geometry_.k_row_bytes;
    view.v_stride = geometry_.v_row_bytes;
  }
  step_rows_ = count;
  return StepView{.row = rows_, .count = count, .layers = layers_};
}

absl::Status PrivateKvStore::Commit(std::span<const uint32_t> token_ids) {
  if (token_ids.size() > step_rows_) {
    return InvalidArgument("more token ids than rows of the step: token_ids={} rows={}",
                           token_ids.size(), step_rows_);
  }
  rows_ += token_ids.size();
  step_rows_ = 0;
  return absl::OkStatus();
}

absl::Status PrivateKvStore::Truncate(uint64_t row) {
  if (row > rows_) return OutOfRange("truncate above the last row: row={} rows={}", row, rows_);
  rows_ = row;
  step_rows_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<KvUsage> PrivateKvStore::Usage() {
  return KvUsage{
      .tokens_seen = rows_, .tokens_kept = rows_, .held_bytes = groups_.size() * group_bytes_};
}

absl::Status PrivateKvStore::Close() {
  FreeGroups();
  closed_ = true;
  step_rows_ = 0;
  return absl::OkStatus();
}

}  // namespace kvasir::engine
