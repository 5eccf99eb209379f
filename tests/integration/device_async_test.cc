// Steps on a device that follow each other without a wait for the stream that writes their rows: it
// falls behind, and what is kept of the rows is all the same what it has written. On a GPU too.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "device/word.h"
#include "tests/integration/device_rows_fixture.h"

namespace kvasir::testing {
namespace {

// The test rows of one token after the other, where a device reads them.
class RowSource {
 public:
  static constexpr uint64_t kElements = 32;  // of a row of TinySpec(), in each plane
  static constexpr uint64_t kRowBytes = kLayers * 2 * kElements * 2;

  RowSource(std::byte* data, uint64_t rows, const ModelSpec& spec) : data_(data) {
    EXPECT_EQ(spec.layers[0].kv_heads * spec.layers[0].k_head_dim, kElements);
    auto* at = data;
    for (uint64_t row = 0; row < rows; ++row) {
      for (uint32_t part = 0; part < kLayers * 2; ++part) {
        for (uint32_t e = 0; e < kElements; ++e, at += 2) {
          const uint16_t element = TestElement(row, part / 2, part % 2, e);
          std::memcpy(at, &element, 2);
        }
      }
    }
  }
  // What a step of one row copies.
  std::vector<device::CopyPiece> PiecesOf(const StepView& step) const {
    std::vector<device::CopyPiece> pieces;
    const std::byte* at = data_ + step.row * kRowBytes;
    for (const LayerView& view : step.layers) {
      for (std::byte* const to : {view.KeyOf(step.row), view.ValueOf(step.row)}) {
        pieces.push_back({to, at, kElements * 2});
        at += kElements * 2;
      }
    }
    return pieces;
  }

 private:
  const std::byte* data_;
};

// Holds up the streams of a device of host memory now and then; of null: nothing.
class Delays {
 public:
  explicit Delays(device::HostDevice* device) : device_(device) {
    if (device != nullptr) thread_ = std::thread([this] { Run(); });
  }
  ~Delays() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Run() {
    for (bool hold = true; !stop_; hold = !hold) {
      device_->HoldForTest(hold);
      std::this_thread::sleep_for(std::chrono::microseconds(hold ? 900 : 100));
    }
    device_->HoldForTest(false);
  }

  device::HostDevice* const device_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

using DeviceAsyncTest = DeviceRowsFixture;

TEST_F(DeviceAsyncTest, AnEngineSeesWhatItSeesInHostMemory) {
  constexpr uint64_t kRows = 300;
  const ModelSpec spec = TinySpec(kLayers);
  const std::unique_ptr<Session> session = ConnectWith(device_.get());
  const absl::StatusOr<ModelHandle> host = session->RegisterModel(spec);
  const absl::StatusOr<ModelHandle> there = session->RegisterModel(DeviceSpec());
  ASSERT_TRUE(host.ok() && there.ok());
  device::testing::SharedPages rows(*device_, RoundUp(kRows * RowSource::kRowBytes, kPageBytes));
  const RowSource source(rows.data(), kRows, spec);
  device::testing::SharedPages word(*device_, kPageBytes);
  const auto stream = device_->MakeStream(device::StreamPriority::kNormal);
  ASSERT_TRUE(stream.ok()) << stream.status();
  Delays delays(OnHost() ? dynamic_cast<device::HostDevice*>(device_.get()) : nullptr);
  std::mt19937_64 random(5);
  std::vector<uint32_t> ids(kRows);
  for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 8);
  uint64_t value = 0, looks = 0, ahead = 0;
  for (const char* retention :
       {"full", "window:size=40", "streamingllm:start_size=4,recent_size=37",
        "streamingllm:start_size=4,recent_size=30,positions=unrotated",
        "sepllm:form=static,init_cache_size=3,local_size=40",
        // What leaves the window is kept or not while the stream may still be there.
        "sepllm:form=static,init_cache_size=3,local_size=2",
        "sepllm:form=manager,init_cache_size=3,sep_cache_size=20,local_size=33,cache_size=150"}) {
    SCOPED_TRACE(retention);
    absl::StatusOr<Sequence> one = session->OpenSequence({*host, retention, 0, "host"});
    absl::StatusOr<Sequence> other = session->OpenSequence({*there, retention, 0, "device"});
    ASSERT_TRUE(one.ok() && other.ok());
    while (other->rows() < kRows) {
      const uint64_t row = other->rows();
      const absl::StatusOr<StepView> step = other->Begin(1);
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      ASSERT_TRUE((*stream)->Copy(source.PiecesOf(*step)).ok());
      ASSERT_TRUE((*stream)->WriteWord(word.word(0), ++value).ok());
      if (random() % 16 == 0 && one->rows() <= row) {  // all that its query sees, once it is there
        Seen seen;
        Extend(*one, ids, row + 1, false, 16, &seen);
        ASSERT_TRUE((*stream)->Synchronize().ok());
        for (uint32_t layer = 0; layer < kLayers; ++layer) {
          EXPECT_EQ(SeenBy(copies_->Fetch(step->layers[layer]), row), seen[row][layer]) << row;
        }
        ++looks;
      }
      ahead += device::HasReached(word.word(0), value) ? 0 : 1;
      const absl::Status committed =
          other->CommitAsync(std::span(ids).subspan(row, 1), {&word.word(0), value});
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
      if (random() % 40 == 0) {
        const uint64_t target = row + 1 - random() % std::min<uint64_t>(row + 1, 8);
        if (other->Truncate(target).ok() && one->rows() > target) (void)one->Truncate(target);
        if (HasFatalFailure()) return;
      }
    }
    EXPECT_TRUE((*stream)->Synchronize().ok());
  }
  EXPECT_GT(looks, 50U);
  if (OnHost()) {
    EXPECT_GT(ahead, 200U) << "the stream was never behind";
  }
}

}  // namespace
}  // namespace kvasir::testing
