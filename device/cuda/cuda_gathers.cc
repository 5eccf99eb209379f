// Rows gathered by the kernels of kernels/cuda.
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/status_macros.h"
#include "device/cuda/cuda_state-inl.h"
#include "kernels/cuda/copy_rows.h"
#include "kernels/cuda/rotate_rows.h"

namespace kvasir::device {
namespace {

static_assert(kNoTurn == kernels::cuda::kNoTurn);

// Lists grow by it, so that calls of about one size share them.
constexpr uint64_t kListBytes = 64 * kKiB;
constexpr uint64_t kAlignment = 16;  // of each list

// Where the lists of a gather lie, in bytes from the beginning.
struct Places {
  uint64_t dst = 0, src = 0, turn_of = 0, turns = 0, end = 0;
};

Places PlacesOf(const RowGather& gather, uint64_t at) {
  const uint64_t rows = gather.rows.size();
  Places places;
  places.dst = at;
  places.src = RoundUp(places.dst + rows * sizeof(std::byte*), kAlignment);
  places.turn_of = RoundUp(places.src + rows * sizeof(std::byte*), kAlignment);
  places.turns = RoundUp(places.turn_of + rows * sizeof(uint32_t), kAlignment);
  places.end = RoundUp(places.turns + gather.turns.size_bytes(), kAlignment);
  return places;
}

void WriteLists(const RowGather& gather, const Places& places, std::byte* to) {
  auto* const dst = reinterpret_cast<std::byte**>(to + places.dst);
  auto* const src = reinterpret_cast<const std::byte**>(to + places.src);
  auto* const turn_of = reinterpret_cast<uint32_t*>(to + places.turn_of);
  for (uint64_t row = 0; row < gather.rows.size(); ++row) {
    dst[row] = gather.rows[row].dst;
    src[row] = gather.rows[row].src;
    turn_of[row] = gather.rows[row].turn;
  }
  if (!gather.turns.empty()) {
    std::memcpy(to + places.turns, gather.turns.data(), gather.turns.size_bytes());
  }
}

// `lists` are the device's.
absl::Status Launch(const RowGather& gather, const Places& places, const std::byte* lists,
                    CUstream stream) {
  const kernels::cuda::RowSource from = {
      .addresses = reinterpret_cast<const std::byte* const*>(lists + places.src)};
  const kernels::cuda::RowTarget to = {.addresses =
                                           reinterpret_cast<std::byte* const*>(lists + places.dst)};
  if (gather.rope == nullptr) {
    return kernels::cuda::CopyRows(
        {.from = from, .to = to, .rows = gather.rows.size(), .row_bytes = gather.row_bytes},
        stream);
  }
  return kernels::cuda::RotateRows(
      {.shape = *gather.rope,
       .from = from,
       .to = to,
       .turns = reinterpret_cast<const float*>(lists + places.turns),
       .turn_of = reinterpret_cast<const uint32_t*>(lists + places.turn_of),
       .rows = gather.rows.size()},
      stream);
}

}  // namespace

CudaGathers::~CudaGathers() {
  if (!state_.Enter().ok()) return;  // goes with the context
  for (const std::unique_ptr<Lists>& lists : lists_) Free(*lists);
}

absl::Status CudaGathers::Put(std::span<const RowGather> gathers) {
  std::vector<Places> places;
  uint64_t bytes = 0;
  for (const RowGather& gather : gathers) {
    places.push_back(PlacesOf(gather, bytes));
    if (!gather.rows.empty()) bytes = places.back().end;
  }
  if (bytes == 0) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(Lists* const lists, Take(bytes));
  for (uint64_t i = 0; i < gathers.size(); ++i) {
    if (!gathers[i].rows.empty()) WriteLists(gathers[i], places[i], lists->host);
  }
  absl::Status status =
      state_.Check(state_.driver.cuMemcpyAsync(lists->device, ToCuda(lists->host), bytes, stream_),
                   "cuMemcpyAsync");
  for (uint64_t i = 0; i < gathers.size() && status.ok(); ++i) {
    if (gathers[i].rows.empty()) continue;
    status =
        Launch(gathers[i], places[i], reinterpret_cast<const std::byte*>(lists->device), stream_);
  }
  // Also where a launch was refused: those before it still read their lists.
  const absl::Status recorded =
      state_.Check(state_.driver.cuEventRecord(lists->passed, stream_), "cuEventRecord");
  return status.ok() ? recorded : status;
}

absl::StatusOr<CudaGathers::Lists*> CudaGathers::Take(uint64_t bytes) {
  bytes = RoundUp(bytes, kListBytes);
  for (const std::unique_ptr<Lists>& lists : lists_) {
    const bool made = lists->passed != nullptr;  // else it could not grow
    if (made && state_.driver.cuEventQuery(lists->passed) != CUDA_SUCCESS) continue;
    if (lists->bytes < bytes) {
      Free(*lists);
      KVASIR_RETURN_IF_ERROR(Make(bytes, lists.get()));
    }
    return lists.get();
  }
  auto made = std::make_unique<Lists>();
  KVASIR_RETURN_IF_ERROR(Make(bytes, made.get()));
  lists_.push_back(std::move(made));
  return lists_.back().get();
}

absl::Status CudaGathers::Make(uint64_t bytes, Lists* lists) {
  const CudaDriver& driver = state_.driver;
  void* host = nullptr;
  absl::Status status =
      state_.Check(driver.cuEventCreate(&lists->passed, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
  if (status.ok()) {
    status = state_.Check(driver.cuMemHostAlloc(&host, bytes, 0), "cuMemHostAlloc");
    lists->host = static_cast<std::byte*>(host);
  }
  if (status.ok()) status = state_.Check(driver.cuMemAlloc(&lists->device, bytes), "cuMemAlloc");
  if (status.ok()) {
    lists->bytes = bytes;
  } else {
    Free(*lists);
  }
  return status;
}

void CudaGathers::Free(Lists& lists) {
  const CudaDriver& driver = state_.driver;
  if (lists.device != 0) (void)state_.Check(driver.cuMemFree(lists.device), "cuMemFree");
  if (lists.host != nullptr) (void)state_.Check(driver.cuMemFreeHost(lists.host), "cuMemFreeHost");
  if (lists.passed != nullptr) (void)driver.cuEventDestroy(lists.passed);
  lists = {};
}

}  // namespace kvasir::device
