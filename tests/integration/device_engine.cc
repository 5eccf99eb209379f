// An engine in a process of its own: a small transformer that decodes over the compact blocks which
// the daemon keeps in the memory of a device, beside a full cache of its own under a mask.
//
//   device_engine CONTROL_SOCKET DATA_SOCKET hidden|host|cuda POOL ROWS RETENTION
// cuda: attention is a kernel of the GPU's, which follows the addresses that views have. host:
// plain code in its place. hidden: host memory that nobody can follow; what is seen is copied
// first. Exit code 0: both gave the same at every row, and rows that are gone would have been seen.
// 3: they differed. 4: something was refused. 77: there is no such device.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/host/host_device.h"
#include "tests/device/reference_path/block_attention.h"
#include "tests/device/reference_path/small_model.h"
#include "tests/integration/row_copies.h"

namespace kvasir::testing {
namespace {

using device::testing::Floats;
using device::testing::MaskedCache;
using M = device::testing::SmallModel;
using device::testing::Row;

constexpr uint64_t kStart = 4, kWindow = 40;
// fp16 rows are rounded in both, now and then to neighbours: scores have a deviation of about 11.
constexpr float kTolerance = 0.02F;

[[noreturn]] void End(int code, const std::string& text) {
  fmt::print(stderr, "device_engine: {}\n", text);
  std::exit(code);
}

template <typename T>
T OrEnd(absl::StatusOr<T> value) {
  if (!value.ok()) End(4, MessageOf(value.status()));
  return *std::move(value);
}

std::unique_ptr<device::Device> Open(const std::string& kind, const std::string& pool) {
  if (kind == "cuda") {
    auto opened = device::testing::OpenForTest(kind);
    if (!opened.ok()) End(77, MessageOf(opened.status()));
    return *std::move(opened);
  }
  device::HostDeviceOptions options;
  options.uuid = "host-" + pool;
  options.hides_extents = kind == "hidden";
  return OrEnd(device::HostDevice::Create(options));
}

ModelSpec Spec(const std::string& pool) {
  ModelSpec spec;
  spec.name = "small transformer";
  spec.layers.assign(M::kLayers, LayerSpec{M::kKvHeads, M::kDim, M::kDim, 0});
  spec.vocabulary_size = M::kVocabulary;
  spec.separator_token_ids = {1, 2, 3};
  spec.slots_per_block = 16;
  spec.weights_digest = std::string(32, 's');
  spec.pool = pool;
  return spec;
}

// What the policy lets the query of `row` see of the rows before.
std::vector<uint32_t> VisibleBefore(uint64_t row, const std::vector<uint32_t>& ids,
                                    bool separators) {
  std::vector<uint32_t> rows;
  for (uint64_t j = 0; j < row; ++j) {
    const bool separator = separators && ids[j] >= 1 && ids[j] <= 3;
    if (j < kStart || separator || row - j < kWindow) rows.push_back(static_cast<uint32_t>(j));
  }
  return rows;
}

// Keys and values of a row, of all kv heads.
struct SeenRows {
  std::vector<const std::byte*> keys, values;
};

SeenRows RowsOf(const LayerView& view, uint64_t row) {
  SeenRows rows;
  const auto add = [&rows](const std::byte* key, const std::byte* value) {
    rows.keys.push_back(key);
    rows.values.push_back(value);
  };
  for (const KeptRunView& run : view.kept) {
    for (uint32_t i = 0; i < run.rows; ++i) {
      add(run.k + uint64_t{i} * run.k_stride, run.v + uint64_t{i} * run.v_stride);
    }
  }
  const uint64_t low = view.WindowFirst(row);
  for (const uint64_t p : view.sticky) {
    if (p < low) add(view.KeyOf(p), view.ValueOf(p));
  }
  for (uint64_t p = low; p <= row; ++p) add(view.KeyOf(p), view.ValueOf(p));
  return rows;
}

// As MaskedCache computes it.
Floats AttendHere(const SeenRows& rows, const Floats& q) {
  const auto element = [](const std::byte* data, uint32_t at) {
    uint16_t bits = 0;
    std::memcpy(&bits, data + 2 * at, 2);
    return double{kernels::F16ToFloat(bits)};
  };
  Floats out(q.size());
  for (uint32_t head = 0; head < M::kKvHeads * M::kHeads; ++head) {
    const uint32_t first = head / M::kHeads * M::kDim;
    std::vector<double> sums(M::kDim);
    double weights = 0;
    for (size_t row = 0; row < rows.keys.size(); ++row) {
      double score = 0;
      for (uint32_t d = 0; d < M::kDim; ++d) {
        score += double{q[head * M::kDim + d]} * element(rows.keys[row], first + d);
      }
      const double weight = std::exp(score * double{M::kScale});
      weights += weight;
      for (uint32_t d = 0; d < M::kDim; ++d)
        sums[d] += weight * element(rows.values[row], first + d);
    }
    for (uint32_t d = 0; d < M::kDim; ++d) {
      out[head * M::kDim + d] = static_cast<float>(sums[d] / weights);
    }
  }
  return out;
}

// Attention on the device: rows stay where they are, and where they are is sent there.
class DeviceAttention {
 public:
  explicit DeviceAttention(device::Device& device)
      : pages_(device, kBytes),
        stream_(*device.MakeStream(device::StreamPriority::kNormal)),
        scratch_(*device.CreateExtent(kBytes, 1)) {}

  Floats Attend(const SeenRows& rows, const Floats& q) {
    const uint64_t count = rows.keys.size();
    if (count > device::testing::kRowsMax) End(4, "too many rows");
    const uint64_t bytes = count * sizeof(rows.keys[0]), q_bytes = q.size() * sizeof(q[0]);
    std::memcpy(pages_.data(), rows.keys.data(), bytes);
    std::memcpy(pages_.data() + kPart, rows.values.data(), bytes);
    std::memcpy(pages_.data() + 2 * kPart, q.data(), q_bytes);
    std::byte* const there = scratch_->address();
    Copy({there, pages_.data(), 2 * kPart + q_bytes});
    device::testing::RowAttention attention;
    attention.keys = reinterpret_cast<const std::byte* const*>(there);
    attention.values = reinterpret_cast<const std::byte* const*>(there + kPart);
    attention.rows = static_cast<uint32_t>(count);
    attention.kv_heads = M::kKvHeads;
    attention.heads = M::kHeads;
    attention.dim = M::kDim;
    attention.scale = M::kScale;
    attention.q = reinterpret_cast<const float*>(there + 2 * kPart);
    attention.out = reinterpret_cast<float*>(there + 3 * kPart);
    const absl::Status attended = device::testing::Attend(attention);
    if (!attended.ok()) End(4, MessageOf(attended));
    Copy({pages_.data() + 3 * kPart, there + 3 * kPart, q_bytes});
    Floats out(q.size());
    std::memcpy(out.data(), pages_.data() + 3 * kPart, q_bytes);
    return out;
  }

 private:
  static constexpr uint64_t kPart = 64 * kKiB, kBytes = 4 * kPart;

  void Copy(const device::CopyPiece& piece) {
    absl::Status copied = stream_->Copy({&piece, 1});
    copied.Update(stream_->Synchronize());
    if (!copied.ok()) End(4, MessageOf(copied));
  }

  device::testing::SharedPages pages_;
  std::unique_ptr<device::DeviceStream> stream_;
  std::unique_ptr<device::DeviceExtent> scratch_;
};

float LargestDifference(const Floats& a, const Floats& b) {
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

int Run(const ConnectOptions& connect, bool is_hidden, const std::string& pool, uint64_t rows,
        const std::string& retention) {
  device::testing::SharedPages pages(*connect.devices[0], kPageBytes);  // outlive the sequence
  const auto stream = OrEnd(connect.devices[0]->MakeStream(device::StreamPriority::kNormal));
  RowCopies copies(*connect.devices[0]);
  DeviceAttention there(*connect.devices[0]);
  const std::unique_ptr<Session> session = OrEnd(Session::Connect(connect));
  const ModelHandle handle = OrEnd(session->RegisterModel(Spec(pool)));
  Sequence sequence = OrEnd(session->OpenSequence({handle, retention, 0, "reference path"}));
  const M model;
  MaskedCache masked, everything;
  std::vector<uint32_t> ids;
  float seen_if_dropped = 0;
  uint32_t token = 5;
  for (uint32_t row = 0; row < rows; ++row) {
    ids.push_back(token);
    const StepView step = OrEnd(sequence.Begin(1));
    masked.Keep(VisibleBefore(row, ids, retention.starts_with("sepllm")));
    const Floats want = model.Step(token, row, std::bind_front(&MaskedCache::Attend, &masked));
    const Floats got = model.Step(token, row, [&](uint32_t layer, const Row& own, const Floats& q) {
      const LayerView& view = step.layers[layer];
      copies.PutRow(view, row, own.data(), own.data() + M::kRowElements / 2);
      return is_hidden ? AttendHere(RowsOf(copies.Fetch(view), row), q)
                       : there.Attend(RowsOf(view, row), q);
    });
    if (LargestDifference(want, got) > kTolerance) {
      End(3, fmt::format("row {}: difference {}", row, LargestDifference(want, got)));
    }
    seen_if_dropped = std::max(
        seen_if_dropped,
        LargestDifference(
            want, model.Step(token, row, std::bind_front(&MaskedCache::Attend, &everything))));
    // The word comes from the stream, the daemon hears of the row at a later step.
    absl::Status committed = stream->WriteWord(pages.word(0), row + 1);
    committed.Update(sequence.CommitAsync(std::span(&token, 1), {&pages.word(0), row + 1}));
    if (!committed.ok()) End(4, MessageOf(committed));
    token = row < 60
                ? row * 37 % M::kVocabulary
                : static_cast<uint32_t>(std::max_element(want.begin(), want.end()) - want.begin());
  }
  if (seen_if_dropped < 10 * kTolerance) End(3, "dropped rows make no difference");
  return 0;
}

}  // namespace
}  // namespace kvasir::testing

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  const std::unique_ptr<kvasir::device::Device> device = kvasir::testing::Open(argv[3], argv[4]);
  kvasir::ConnectOptions options;
  options.control_socket = argv[1];
  options.data_socket = argv[2];
  options.devices = {device.get()};
  return kvasir::testing::Run(options, std::string(argv[3]) == "hidden", argv[4],
                              std::strtoull(argv[5], nullptr, 10), argv[6]);
}
