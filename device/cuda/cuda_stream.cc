// Streams and events of CUDA.
#include <deque>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "device/cuda/cuda_state-inl.h"
#include "device/word.h"

namespace kvasir::device {
namespace {

class CudaEvent final : public DeviceEvent {
 public:
  CudaEvent(CudaState& state, CUevent event) : state_(state), event_(event) {}
  ~CudaEvent() override {
    if (state_.Enter().ok()) (void)state_.driver.cuEventDestroy(event_);
  }

  absl::StatusOr<bool> Query() override {
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    const CUresult result = state_.driver.cuEventQuery(event_);
    if (result == CUDA_ERROR_NOT_READY) return false;
    KVASIR_RETURN_IF_ERROR(state_.Check(result, "cuEventQuery"));
    return true;
  }
  absl::Status Synchronize() override {
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    return state_.Check(state_.driver.cuEventSynchronize(event_), "cuEventSynchronize");
  }
  CUevent get() const { return event_; }

 private:
  CudaState& state_;
  const CUevent event_;
};

absl::StatusOr<CUevent> EventOf(const char* call, DeviceEvent* event) {
  auto* const cuda = dynamic_cast<CudaEvent*>(event);
  if (cuda == nullptr) return InvalidArgument("{}: event is none of a CUDA device", call);
  return cuda->get();
}

class CudaStream final : public DeviceStream {
 public:
  CudaStream(CudaState& state, CUstream stream)
      : state_(state), stream_(stream), gathers_(state, stream) {}
  ~CudaStream() override {
    ReleaseWaits();
    if (!state_.Enter().ok()) return;  // a broken context keeps its streams
    (void)state_.Check(state_.driver.cuStreamSynchronize(stream_), "cuStreamSynchronize");
    (void)state_.driver.cuStreamDestroy(stream_);
    for (const PendingWait& wait : waits_) (void)state_.driver.cuEventDestroy(wait.passed);
    for (const CUevent event : spare_) (void)state_.driver.cuEventDestroy(event);
  }

  absl::Status Copy(std::span<const CopyPiece> pieces) override {
    KVASIR_RETURN_IF_ERROR(state_.ranges.Check(pieces));
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    if (pieces.size() > 1 && state_.driver.cuMemcpyBatchAsync != nullptr) return CopyBatch(pieces);
    for (const CopyPiece& piece : pieces) {
      KVASIR_RETURN_IF_ERROR(state_.Check(
          state_.driver.cuMemcpyAsync(ToCuda(piece.dst), ToCuda(piece.src), piece.bytes, stream_),
          "cuMemcpyAsync"));
    }
    return absl::OkStatus();
  }

  absl::Status CopyStrided(std::span<const StridedPiece> pieces) override {
    KVASIR_RETURN_IF_ERROR(state_.ranges.Check(pieces));
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    for (const StridedPiece& piece : pieces) {
      CUDA_MEMCPY2D copy = {};
      copy.srcMemoryType = CU_MEMORYTYPE_UNIFIED;
      copy.srcDevice = ToCuda(piece.src);
      copy.srcPitch = piece.rows == 1 ? piece.row_bytes : piece.src_stride;
      copy.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
      copy.dstDevice = ToCuda(piece.dst);
      copy.dstPitch = piece.rows == 1 ? piece.row_bytes : piece.dst_stride;
      copy.WidthInBytes = piece.row_bytes;
      copy.Height = piece.rows;
      KVASIR_RETURN_IF_ERROR(
          state_.Check(state_.driver.cuMemcpy2DAsync(&copy, stream_), "cuMemcpy2DAsync"));
    }
    return absl::OkStatus();
  }

  absl::Status GatherRows(std::span<const RowGather> gathers) override {
    KVASIR_RETURN_IF_ERROR(state_.ranges.Check(gathers));
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    return gathers_.Put(gathers);
  }

  absl::Status Zero(const DeviceExtent& extent) override {
    if (extent.access() == Access::kReadOnly) {
      return FailedPrecondition("Zero: extent is mapped read-only: id={}", extent.id());
    }
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    return state_.Check(
        state_.driver.cuMemsetD8Async(ToCuda(extent.address()), 0, extent.charged_bytes(), stream_),
        "cuMemsetD8Async");
  }

  absl::Status Record(const std::shared_ptr<DeviceEvent>& event) override {
    KVASIR_ASSIGN_OR_RETURN(const CUevent cuda, EventOf("Record", event.get()));
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    return state_.Check(state_.driver.cuEventRecord(cuda, stream_), "cuEventRecord");
  }
  absl::Status Wait(const std::shared_ptr<DeviceEvent>& event) override {
    KVASIR_ASSIGN_OR_RETURN(const CUevent cuda, EventOf("Wait", event.get()));
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    return state_.Check(state_.driver.cuStreamWaitEvent(stream_, cuda, 0), "cuStreamWaitEvent");
  }

  absl::Status WriteWord(DeviceWord& word, uint64_t value) override {
    KVASIR_RETURN_IF_ERROR(state_.ranges.CheckWord("WriteWord", word));
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    return state_.Check(state_.driver.cuStreamWriteValue64(stream_, AddressOf(word), value,
                                                           CU_STREAM_WRITE_VALUE_DEFAULT),
                        "cuStreamWriteValue64");
  }
  absl::Status WaitWord(DeviceWord& word, uint64_t at_least) override {
    KVASIR_RETURN_IF_ERROR(state_.ranges.CheckWord("WaitWord", word));
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    ForgetWhatHasCome();
    CUevent passed = nullptr;
    if (spare_.empty()) {
      KVASIR_RETURN_IF_ERROR(state_.Check(
          state_.driver.cuEventCreate(&passed, CU_EVENT_DISABLE_TIMING), "cuEventCreate"));
    } else {
      passed = spare_.back();
      spare_.pop_back();
    }
    const absl::Status waits =
        state_.Check(state_.driver.cuStreamWaitValue64(stream_, AddressOf(word), at_least,
                                                       CU_STREAM_WAIT_VALUE_GEQ),
                     "cuStreamWaitValue64");
    if (!waits.ok()) {
      spare_.push_back(passed);
      return waits;
    }
    waits_.push_back({&word, at_least, passed});
    return state_.Check(state_.driver.cuEventRecord(passed, stream_), "cuEventRecord");
  }
  void ReleaseWaits() override {
    if (!state_.Enter().ok()) return;
    ForgetWhatHasCome();
    for (const PendingWait& wait : waits_) RaiseWord(*wait.word, wait.at_least);
  }

  absl::Status Synchronize() override {
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    return state_.Check(state_.driver.cuStreamSynchronize(stream_), "cuStreamSynchronize");
  }

 private:
  struct PendingWait {
    DeviceWord* word = nullptr;
    uint64_t at_least = 0;
    CUevent passed = nullptr;  // behind it in the stream
  };

  // The memory of a word may go once the stream has passed it: so that is asked of an event, and
  // never of the word.
  void ForgetWhatHasCome() {
    while (!waits_.empty() && state_.driver.cuEventQuery(waits_.front().passed) == CUDA_SUCCESS) {
      spare_.push_back(waits_.front().passed);
      waits_.pop_front();
    }
  }

  static CUdeviceptr AddressOf(const DeviceWord& word) {
    return ToCuda(reinterpret_cast<const std::byte*>(&word));
  }

  absl::Status CopyBatch(std::span<const CopyPiece> pieces) {
    std::vector<CUdeviceptr> dst, src;
    std::vector<size_t> bytes;
    dst.reserve(pieces.size());
    src.reserve(pieces.size());
    bytes.reserve(pieces.size());
    for (const CopyPiece& piece : pieces) {
      dst.push_back(ToCuda(piece.dst));
      src.push_back(ToCuda(piece.src));
      bytes.push_back(piece.bytes);
    }
    CUmemcpyAttributes attributes = {};
    attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    size_t first = 0;
    return state_.Check(
        state_.driver.cuMemcpyBatchAsync(dst.data(), src.data(), bytes.data(), bytes.size(),
                                         &attributes, &first, 1, stream_),
        "cuMemcpyBatchAsync");
  }

  CudaState& state_;
  const CUstream stream_;
  CudaGathers gathers_;
  std::deque<PendingWait> waits_;  // in the order of the stream
  std::vector<CUevent> spare_;
};

}  // namespace

std::unique_ptr<DeviceStream> MakeCudaStream(CudaState& state, CUstream stream) {
  return std::make_unique<CudaStream>(state, stream);
}

std::shared_ptr<DeviceEvent> MakeCudaEvent(CudaState& state, CUevent event) {
  return std::make_shared<CudaEvent>(state, event);
}

}  // namespace kvasir::device
