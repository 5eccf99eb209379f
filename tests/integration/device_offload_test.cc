// What a device has cached goes to host memory when it fills up, from there to a disk, and comes
// back by both when an engine goes on from it; a daemon between, whose threads do it. The same
// suite runs on a GPU.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/integration/device_rows_fixture.h"
#include "tests/support/eventually.h"

namespace kvasir::testing {
namespace {

constexpr uint64_t kRows = 400;  // of a prefix

class DeviceOffloadTest : public DeviceRowsFixture {
 protected:
  void SetUp() override {
    DeviceRowsFixture::SetUp();
    if (device_ != nullptr) Restart();  // else it is skipped
  }

  void TearDown() override {
    if (server_ == nullptr) return;
    {
      SharedCore& shared = server_->shared_for_test();
      MutexLock lock(shared.mutex);
      EXPECT_TRUE(shared.core.DropPrefixes("").ok());
    }
    ExpectNothingCharged();
    EXPECT_EQ(server_->Snapshot().device_pools.at(0).charged_bytes, 0U);
  }

  // A daemon on the same disk, with room for some ten prefixes on its device.
  void Restart(uint64_t limit_bytes = 6 * kMiB) {
    server_.reset();
    Config config = WithDevicePool(MakeConfig(), NameOf(*device_), limit_bytes);
    config.tier.disk_path = folder_.path() + "/tier";
    config.tier.disk_bytes = 64 * kMiB;
    config.tenants[0].disk_bytes = 64 * kMiB;
    config.tier.stop_drain_ms = 60'000;
    StartServer(config);
  }

  struct Engine {
    std::unique_ptr<Session> session;
    ModelHandle model;
    bool on_device = false;
  };
  Engine ConnectOn(const std::string& pool) {
    Engine engine;
    engine.session = ConnectWith(device_.get());
    ModelSpec spec = TinySpec(kLayers);
    spec.pool = pool;
    const absl::StatusOr<ModelHandle> model = engine.session->RegisterModel(spec);
    EXPECT_TRUE(model.ok()) << MessageOf(model.status());
    engine.model = *model;
    engine.on_device = !pool.empty();
    return engine;
  }

  static std::vector<uint32_t> Tokens(uint32_t seed) {
    std::vector<uint32_t> tokens(kRows);
    for (uint64_t i = 0; i < kRows; ++i) tokens[i] = static_cast<uint32_t>((i * 31 + seed) % 997);
    return tokens;
  }

  absl::StatusOr<Sequence> Open(Engine& engine, uint32_t seed) {
    OpenOptions options;
    options.model = engine.model;
    options.prefix.emplace();
    options.prefix->tokens = Tokens(seed);
    return engine.session->OpenSequence(options);
  }

  void Publish(Engine& engine, uint32_t seed) {
    absl::StatusOr<Sequence> sequence = Open(engine, seed);
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    const std::vector<uint32_t> tokens = Tokens(seed);
    while (sequence->rows() < kRows) {
      const absl::StatusOr<StepView> step =
          sequence->Begin(static_cast<uint32_t>(kRows - sequence->rows()));
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      copies_->Write(*step, TinySpec(kLayers));
      const absl::Status committed =
          sequence->Commit(std::span(tokens).subspan(sequence->rows(), step->count));
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
    }
    const absl::StatusOr<Sequence::Published> published = sequence->PublishPrefix();
    ASSERT_TRUE(published.ok()) << MessageOf(published.status());
  }

  // The rows are there, and each has its bytes.
  void ExpectAttached(Engine& engine, uint32_t seed) {
    absl::StatusOr<Sequence> sequence = Open(engine, seed);
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    ASSERT_EQ(sequence->rows(), kRows) << "prefix " << seed;
    const absl::StatusOr<StepView> step = sequence->Begin(1);
    ASSERT_TRUE(step.ok()) << MessageOf(step.status());
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      const LayerView& there = step->layers[layer];
      const LayerView view = engine.on_device ? copies_->Fetch(there) : there;
      EXPECT_EQ(VisibleRows(view, kRows - 1, layer, TinySpec(kLayers)).size(), kRows);
    }
  }

  core::OffloadCounters Counters() {
    return server_->Snapshot().tenants.at(0).devices.at(0).offloads;
  }
};

TEST_F(DeviceOffloadTest, APrefixGoesDownToTheDiskAndComesUpAgain) {
  uint32_t prefixes = 0;
  {
    Engine engine = ConnectOn("gpu0");
    while (Counters().stores == 0 && prefixes < 60 && !HasFatalFailure()) {
      Publish(engine, prefixes++);
    }
    ASSERT_GT(Counters().stores, 0U) << "the device is not full";
    ASSERT_TRUE(Eventually([&] { return Counters().stores >= prefixes - 1; }))
        << Counters().stores << " of " << prefixes;
    for (uint32_t seed = 0; seed < prefixes && !HasFatalFailure(); ++seed) {
      ExpectAttached(engine, seed);
    }
    EXPECT_GT(Counters().loads, 0U);
    EXPECT_EQ(Counters().failures, 0U);
    Engine host = ConnectOn("");
    ExpectAttached(host, 0);
  }
  Restart();  // what lay in host memory is on the disk
  Engine engine = ConnectOn("gpu0");
  EXPECT_EQ(Counters().loads, 0U);
  ExpectAttached(engine, 0);
  EXPECT_EQ(Counters().loads, 1U);
}

TEST_F(DeviceOffloadTest, ASavedSequenceIsGoneOnFromInEitherMemory) {
  Engine engine = ConnectOn("gpu0");
  Engine host = ConnectOn("");
  absl::StatusOr<Sequence> sequence =
      engine.session->OpenSequence({engine.model, "window:size=64", 0, ""});
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  for (uint64_t row = 0; row < 100; ++row) {
    const absl::StatusOr<StepView> step = sequence->Begin(1);
    ASSERT_TRUE(step.ok()) << MessageOf(step.status());
    copies_->Write(*step, TinySpec(kLayers));
    ASSERT_TRUE(sequence->Commit(std::vector<uint32_t>{7}).ok());
  }
  const absl::StatusOr<Snapshot> saved = sequence->Save();
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  for (Engine* const one : {&host, &engine, &host}) {
    OpenOptions from;
    from.model = one->model;
    from.snapshot = saved->id;
    absl::StatusOr<Sequence> resumed = one->session->OpenSequence(from);
    ASSERT_TRUE(resumed.ok()) << MessageOf(resumed.status());
    ASSERT_EQ(resumed->rows(), 100U);
    const absl::StatusOr<StepView> step = resumed->Begin(1);
    ASSERT_TRUE(step.ok()) << MessageOf(step.status());
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      const LayerView& there = step->layers[layer];
      const LayerView view = one->on_device ? copies_->Fetch(there) : there;
      EXPECT_EQ(VisibleRows(view, 99, layer, TinySpec(kLayers)).size(), 64U);
    }
  }
  EXPECT_EQ(Counters().stores, 2U);
  EXPECT_EQ(Counters().loads, 1U);
  EXPECT_TRUE(host.session->DropSnapshot(saved->id).ok());
}

// Nobody publishes, saves or drops anything: the daemon looks by itself whether a device fills up.
TEST_F(DeviceOffloadTest, WhatIsSavedGoesDownWhileOthersOnlyDecode) {
  Restart(16 * kMiB);
  Engine engine = ConnectOn("gpu0");
  const auto decode = [&](Sequence& sequence, uint64_t rows) {
    while (sequence.rows() < rows) {
      const absl::StatusOr<StepView> step = sequence.Begin(16);
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      ASSERT_TRUE(sequence.Commit(std::vector<uint32_t>(step->count, 7)).ok());
    }
  };
  absl::StatusOr<Sequence> first = engine.session->OpenSequence({engine.model, "full", 0, ""});
  ASSERT_TRUE(first.ok()) << MessageOf(first.status());
  decode(*first, 64);
  const absl::StatusOr<Snapshot> saved = first->Save();
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  ASSERT_TRUE(first->Close().ok());
  const auto held = [&] { return server_->Snapshot().tenants.at(0).devices.at(0).held_bytes; };
  std::vector<Sequence> more;
  while (held() < 13 * kMiB && !HasFatalFailure()) {  // 80% and a little
    absl::StatusOr<Sequence> next = engine.session->OpenSequence({engine.model, "full", 0, ""});
    ASSERT_TRUE(next.ok()) << MessageOf(next.status());
    more.push_back(*std::move(next));
    decode(more.back(), 1024);
  }
  EXPECT_TRUE(Eventually([&] { return Counters().stores == 1; }));
  EXPECT_TRUE(engine.session->DropSnapshot(saved->id).ok());
}

}  // namespace
}  // namespace kvasir::testing
