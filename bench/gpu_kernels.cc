#include "bench/gpu_kernels.h"

#include <cstddef>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include "base/status_macros.h"
#include "bench/statistics.h"
#include "kernels/cuda/copy_rows.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/int_records.h"
#include "kernels/cuda/rotate_rows.h"
#include "kernels/row_convert.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

using kernels::cuda::CudaStatus;

constexpr uint64_t kKeptBytes = uint64_t{256} << 20U;  // far beyond every cache
constexpr uint32_t kSparsest = 5;                      // one row of five is kept
constexpr uint32_t kRunsEach = 8;                      // between two events
constexpr uint32_t kBlockRows = 64;
// int8 records of fp8 rows are larger than the rows: they have scales and zeros as well.
constexpr uint64_t kToBytes = kKeptBytes / 8 * 9;

using Work = std::function<absl::Status()>;

// Memory, a stream and events; freed at the end.
class Gpu {
 public:
  Gpu() = default;
  ~Gpu() {
    for (std::byte* at : held_) {
      (void)cudaFree(at);
    }
    for (cudaEvent_t event : {from_, to_}) {
      if (event != nullptr) (void)cudaEventDestroy(event);
    }
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  absl::Status Open() {
    // Kernels of the daemon give way to those of engines.
    int least = 0;
    int greatest = 0;
    KVASIR_RETURN_IF_ERROR(
        CudaStatus("priorities", cudaDeviceGetStreamPriorityRange(&least, &greatest)));
    KVASIR_RETURN_IF_ERROR(
        CudaStatus("stream", cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, least)));
    KVASIR_RETURN_IF_ERROR(CudaStatus("event", cudaEventCreate(&from_)));
    return CudaStatus("event", cudaEventCreate(&to_));
  }

  absl::Status Take(uint64_t bytes, std::byte*& at) {
    void* made = nullptr;
    KVASIR_RETURN_IF_ERROR(CudaStatus("memory of the device", cudaMalloc(&made, bytes)));
    at = static_cast<std::byte*>(made);
    held_.push_back(at);
    return CudaStatus("memory of the device", cudaMemset(at, 0x11, bytes));
  }

  template <class T>
  absl::Status Put(const std::vector<T>& values, const T*& at) {
    std::byte* made = nullptr;
    KVASIR_RETURN_IF_ERROR(Take(values.size() * sizeof(T), made));
    at = reinterpret_cast<const T*>(made);
    return CudaStatus("upload", cudaMemcpy(made, values.data(), values.size() * sizeof(T),
                                           cudaMemcpyHostToDevice));
  }

  // Seconds of one run.
  absl::Status Time(const Work& work, double& seconds) {
    KVASIR_RETURN_IF_ERROR(CudaStatus("event", cudaEventRecord(from_, stream_)));
    for (uint32_t run = 0; run < kRunsEach; ++run) {
      KVASIR_RETURN_IF_ERROR(work());
    }
    KVASIR_RETURN_IF_ERROR(CudaStatus("event", cudaEventRecord(to_, stream_)));
    KVASIR_RETURN_IF_ERROR(CudaStatus("run", cudaEventSynchronize(to_)));
    float milliseconds = 0;
    KVASIR_RETURN_IF_ERROR(CudaStatus("event", cudaEventElapsedTime(&milliseconds, from_, to_)));
    seconds = double{milliseconds} * 1e-3 / kRunsEach;
    return absl::OkStatus();
  }

  cudaStream_t stream() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t from_ = nullptr;
  cudaEvent_t to_ = nullptr;
  std::vector<std::byte*> held_;
};

// The copy and the work take turns; ratios are those within rounds.
absl::Status Measure(Gpu& gpu, uint32_t rounds, const Work& copy, const Work& work, Row row,
                     Report& report) {
  std::vector<double> rates, references, ratios;
  double own = 0;
  double reference = 0;
  KVASIR_RETURN_IF_ERROR(gpu.Time(copy, reference));  // clocks rise, code is loaded
  KVASIR_RETURN_IF_ERROR(gpu.Time(work, own));
  for (uint32_t round = 0; round < rounds; ++round) {
    KVASIR_RETURN_IF_ERROR(gpu.Time(copy, reference));
    KVASIR_RETURN_IF_ERROR(gpu.Time(work, own));
    rates.push_back(static_cast<double>(kKeptBytes) / own * 1e-9);
    references.push_back(static_cast<double>(kKeptBytes) / reference * 1e-9);
    ratios.push_back(reference / own);
  }
  const MedianInterval rate = MedianOf(rates);
  const MedianInterval ratio = MedianOf(ratios);
  row.value = rate.median;
  row.unit = "GB/s of kept bytes";
  row.reference = MedianOf(references).median;
  row.reference_name = "cudaMemcpyAsync, device to device";
  row.better = Better::kHigher;
  row.extra = {{"low", rate.low},
               {"high", rate.high},
               {"ratio_median", ratio.median},
               {"ratio_low", ratio.low},
               {"ratio_high", ratio.high}};
  report.Add(std::move(row));
  return absl::OkStatus();
}

// One row of every `sparsity`, at random gaps, in order: what a compaction copies.
std::vector<uint32_t> KeptRows(uint64_t rows, uint32_t sparsity) {
  std::mt19937 random(1);
  std::vector<uint32_t> kept(rows);
  for (uint64_t row = 0; row < rows; ++row) {
    kept[row] = static_cast<uint32_t>(row * sparsity + random() % sparsity);
  }
  return kept;
}

class KernelRows {
 public:
  KernelRows(uint32_t rounds, Report& report) : rounds_(rounds), report_(report) {}

  absl::Status Run() {
    KVASIR_RETURN_IF_ERROR(gpu_.Open());
    KVASIR_RETURN_IF_ERROR(gpu_.Take(kKeptBytes * kSparsest, pool_));
    KVASIR_RETURN_IF_ERROR(gpu_.Take(kToBytes, to_));
    KVASIR_RETURN_IF_ERROR(Compactions());
    for (const auto& [type, suffix] :
         {std::pair{kernels::RowType::kF16, ""}, {kernels::RowType::kE4M3, "/fp8"}}) {
      KVASIR_RETURN_IF_ERROR(Rotations(type, suffix));
      KVASIR_RETURN_IF_ERROR(Encodings(type, suffix));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Add(const std::string& name, const std::string& goal, const Work& work) {
    const Work copy = [this] {
      return CudaStatus(
          "copy", cudaMemcpyAsync(to_, pool_, kKeptBytes, cudaMemcpyDeviceToDevice, gpu_.stream()));
    };
    Row row;
    row.name = name;
    row.goal = goal;
    return Measure(gpu_, rounds_, copy, work, std::move(row), report_);
  }

  absl::Status Compactions() {
    for (const auto& [row_bytes, goal] :
         {std::pair{2048U, "ratio >= 0.8"}, {256U, "ratio >= 0.6"}}) {
      for (const uint32_t sparsity : {2U, kSparsest}) {
        kernels::cuda::RowCopy copy;
        copy.rows = kKeptBytes / row_bytes;
        copy.row_bytes = row_bytes;
        copy.from = {.base = pool_, .stride = row_bytes};
        copy.to = {.base = to_, .stride = row_bytes};
        KVASIR_RETURN_IF_ERROR(gpu_.Put(KeptRows(copy.rows, sparsity), copy.from.indices));
        KVASIR_RETURN_IF_ERROR(Add(fmt::format("compact/{}/one_in_{}", row_bytes, sparsity), goal,
                                   [&] { return kernels::cuda::CopyRows(copy, gpu_.stream()); }));
      }
    }
    return absl::OkStatus();
  }

  // Llama-3-8B and SmolLM2-135M, which pair halves: rows turned for their places in a block.
  absl::Status Rotations(kernels::RowType type, const char* suffix) {
    for (const auto& [heads, dim] : {std::pair{8U, 128U}, {3U, 64U}}) {
      const uint64_t row_bytes = uint64_t{heads} * dim * kernels::ElementBytes(type);
      kernels::cuda::RowRotation rotation;
      rotation.shape = {.type = type,
                        .pairing = kernels::RopePairing::kHalfSplit,
                        .kv_heads = heads,
                        .head_dim = dim,
                        .rotated_dims = dim};
      rotation.rows = kKeptBytes / row_bytes;
      rotation.from = {.base = pool_, .stride = row_bytes};
      rotation.to = {.base = to_, .stride = row_bytes};
      const std::vector<uint32_t> kept = KeptRows(rotation.rows, 2);
      // As many turns as a block of kept rows has at most: the factors of a copy.
      constexpr uint32_t kTurns = 128;
      std::vector<int64_t> deltas;
      for (uint32_t turn = 0; turn < kTurns; ++turn) deltas.push_back(-int64_t{turn} - 1);
      std::vector<float> factors(deltas.size() * dim);
      kernels::MakeTurns(rotation.shape, deltas, factors.data());
      std::vector<uint32_t> turn_of;
      for (size_t row = 0; row < kept.size(); ++row) {
        turn_of.push_back(static_cast<uint32_t>(row % kTurns));
      }
      KVASIR_RETURN_IF_ERROR(gpu_.Put(kept, rotation.from.indices));
      KVASIR_RETURN_IF_ERROR(gpu_.Put(factors, rotation.turns));
      KVASIR_RETURN_IF_ERROR(gpu_.Put(turn_of, rotation.turn_of));
      KVASIR_RETURN_IF_ERROR(
          Add(fmt::format("rotate/{}x{}/one_in_2{}", heads, dim, suffix), "",
              [&] { return kernels::cuda::RotateRows(rotation, gpu_.stream()); }));
    }
    return absl::OkStatus();
  }

  absl::Status Encodings(kernels::RowType type, const char* suffix) {
    for (const auto& [codec, name] :
         {std::pair{kernels::Codec::kInt8, "int8"}, {kernels::Codec::kInt4, "int4"}}) {
      for (const auto plane : {kernels::RecordPlane::kKey, kernels::RecordPlane::kValue}) {
        kernels::cuda::RecordEncoding encoding;
        encoding.shape = {
            .codec = codec, .plane = plane, .type = type, .rows = kBlockRows, .dims = 128};
        encoding.kv_heads = 8;
        const uint64_t row_bytes = uint64_t{8} * 128 * kernels::ElementBytes(type);
        encoding.blocks = kKeptBytes / (row_bytes * kBlockRows);
        encoding.from = {.base = pool_, .stride = row_bytes};
        const uint64_t bytes = kernels::RecordBytes(encoding.shape);
        encoding.to = {to_, bytes * encoding.kv_heads, bytes};
        const char* const of = plane == kernels::RecordPlane::kKey ? "keys" : "values";
        KVASIR_RETURN_IF_ERROR(Add(fmt::format("encode/{}/{}{}", name, of, suffix), "", [&] {
          return kernels::cuda::EncodeRecords(encoding, gpu_.stream());
        }));
      }
    }
    return absl::OkStatus();
  }

  const uint32_t rounds_;
  Report& report_;
  Gpu gpu_;
  std::byte* pool_ = nullptr;
  std::byte* to_ = nullptr;
};

}  // namespace

absl::Status RunKernelRows(uint32_t rounds, Report& report) {
  return KernelRows(rounds, report).Run();
}

}  // namespace kvasir::bench
