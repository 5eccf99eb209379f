// What the offload engine promises, on each kind of device.
#include <string>
#include <utility>
#include <vector>

#include "tests/device/device_fixture.h"
#include "tests/device/offload_fixture.h"

namespace kvasir::device::testing {
namespace {

class OffloadConformance : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (device_ == nullptr) return;
    world_ = std::make_unique<OffloadWorld>(*device_);
    engine_ = OffloadEngine::Create(*device_, {}).value();
  }
  void TearDown() override {
    engine_.reset();
    world_.reset();
    stream_.reset();
  }
  uint64_t Submit(OffloadRequest request) {
    const auto id = engine_->Submit(world_->layout(), std::move(request));
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or(0);
  }
  // Until all has ended.
  std::vector<OffloadResult> Finish() {
    std::vector<OffloadResult> all;
    for (;;) {
      for (OffloadResult& result : engine_->Poll()) all.push_back(std::move(result));
      EXPECT_TRUE(engine_->CheckBooks().ok()) << engine_->CheckBooks();
      const OffloadCounts counts = engine_->counts();
      if (counts.queued + counts.in_flight == 0) return all;
    }
  }

  std::unique_ptr<OffloadWorld> world_;
  std::unique_ptr<OffloadEngine> engine_;
};

TEST_P(OffloadConformance, GroupsGoAndComeBackExactlyInBothOrders) {
  for (const StepOrder order : {StepOrder::kByLayer, StepOrder::kByGroup}) {
    // Two runs and a block on its own, and a permutation that is no run.
    const std::vector<BlockPair> in = {{world_->group(0), 4}, {world_->group(1), 5},
                                       {world_->group(2), 6}, {world_->group(5), 1},
                                       {world_->group(4), 9}, {world_->group(3), 0}};
    for (uint32_t i = 0; i < 6; ++i) world_->Fill(i, i + 1);
    Submit({.direction = CopyDirection::kToDevice, .order = order, .blocks = in});
    for (const OffloadResult& result : Finish()) EXPECT_TRUE(result.status.ok()) << result.status;
    std::vector<BlockPair> out = in;
    for (uint32_t i = 0; i < 6; ++i) {
      world_->Fill(i, 99);
      out[i].host_group += 6 * world_->group_bytes();
    }
    Submit({.direction = CopyDirection::kToHost, .order = order, .blocks = out});
    for (const OffloadResult& result : Finish()) EXPECT_TRUE(result.status.ok()) << result.status;
    for (uint32_t i = 0; i < 6; ++i) EXPECT_TRUE(world_->Has(6 + i, i + 1)) << i;
  }
}

TEST_P(OffloadConformance, NoStridedCopyLeadsFromOneRegisteredMemoryIntoAnother) {
  const SharedPages other(*device_, world_->group_bytes());
  std::vector<BlockPair> in = {{world_->group(0), 0, 0}, {other.data(), 1, 1}};
  // As a run: ascending on both sides.
  if (in[0].host_group > in[1].host_group) std::swap(in[0].host_group, in[1].host_group);
  FillPattern(in[0].host_group, world_->group_bytes(), 1);
  FillPattern(in[1].host_group, world_->group_bytes(), 2);
  Submit({.blocks = in});
  for (const OffloadResult& result : Finish()) EXPECT_TRUE(result.status.ok()) << result.status;
  Submit({.direction = CopyDirection::kToHost,
          .blocks = {{world_->group(2), 0}, {world_->group(3), 1}}});
  for (const OffloadResult& result : Finish()) EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(world_->Has(2, 1));
  EXPECT_TRUE(world_->Has(3, 2));
}

TEST_P(OffloadConformance, AStepIsAWordThatAStreamCanWaitFor) {
  const uint64_t parts = world_->layout().parts();
  ASSERT_TRUE(stream_->WaitWord(world_->word(), 100 + parts).ok());
  const auto event = device_->MakeEvent().value();
  ASSERT_TRUE(stream_->Record(event).ok());
  EXPECT_FALSE(event->Query().value());
  Submit({.blocks = {{world_->group(0), 0}, {world_->group(1), 1}},
          .word = &world_->word(),
          .word_base = 100});
  EXPECT_TRUE(event->Synchronize().ok());
  EXPECT_EQ(world_->word().load(), 100 + parts);
  EXPECT_EQ(Finish().size(), 1U);
}

TEST_P(OffloadConformance, RefusesWhatItCannotDoAndNamesIt) {
  EXPECT_EQ(engine_->Submit(world_->layout(), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto beyond =
      engine_->Submit(world_->layout(), {.blocks = {{world_->group(0), OffloadWorld::kBlocks}}});
  EXPECT_EQ(beyond.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(beyond.status().message()), ::testing::HasSubstr("blocks=16"));
  EXPECT_EQ(engine_->Cancel(77).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(engine_->counts().submitted, 0U);
}

INSTANTIATE_TEST_SUITE_P(On, OffloadConformance, ::testing::Values(KVASIR_TEST_DEVICE));

}  // namespace
}  // namespace kvasir::device::testing
