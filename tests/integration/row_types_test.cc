// Models whose rows are of each type: what is kept of them, in which bytes, and that decisions by
// keys are those of the same numbers in f32.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/row_convert.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

constexpr uint32_t kLayers = 2, kHeads = 2, kDim = 16, kElements = kHeads * kDim;

kernels::RowType RowTypeOf(KvType type) {
  return type == KvType::kF16    ? kernels::RowType::kF16
         : type == KvType::kBF16 ? kernels::RowType::kBF16
         : type == KvType::kF32  ? kernels::RowType::kF32
                                 : kernels::RowType::kE4M3;
}

// A number that every type has: n/8 for n of -15 to 15.
float Number(uint64_t row, uint32_t layer, uint32_t plane, uint32_t element) {
  const uint64_t mixed = (((row * 4 + layer) * 2 + plane) * 64 + element + 1) * 0x9E3779B97F4A7C15U;
  return static_cast<float>(static_cast<int>((mixed >> 32U) % 31) - 15) / 8.0F;
}

std::vector<std::byte> RowOf(KvType type, uint64_t row, uint32_t layer, uint32_t plane) {
  std::vector<std::byte> bytes(kElements * ElementBytes(type));
  for (uint32_t e = 0; e < kElements; ++e) {
    kernels::StoreElement(RowTypeOf(type), bytes.data(), e, Number(row, layer, plane, e));
  }
  return bytes;
}

class RowTypesTest : public DaemonFixture, public ::testing::WithParamInterface<KvType> {
 protected:
  void SetUp() override { StartServer(MakeConfig()); }

  static ModelSpec Spec(KvType type) {
    ModelSpec spec = TinySpec(kLayers);
    spec.kv_type = type;
    return spec;
  }

  // Rows 0 to `rows`: which of them layer 1 keeps, row * kHeads + head, once it was checked that
  // whatever is kept has the bytes that were written.
  std::vector<uint32_t> KeptAfter(Session& session, KvType type, const std::string& retention,
                                  uint64_t rows) {
    const absl::StatusOr<ModelHandle> model = session.RegisterModel(Spec(type));
    EXPECT_TRUE(model.ok()) << MessageOf(model.status());
    absl::StatusOr<Sequence> sequence = session.OpenSequence({*model, retention, rows / 2, ""});
    EXPECT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    std::vector<uint32_t> kept;
    while (sequence->rows() < rows) {
      const absl::StatusOr<StepView> step = sequence->Begin(1);
      EXPECT_TRUE(step.ok()) << MessageOf(step.status());
      if (!step.ok()) return {};
      kept.clear();
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        const LayerView& view = step->layers[layer];
        EXPECT_EQ(view.k_stride, kElements * ElementBytes(type));
        std::memcpy(view.KeyOf(step->row), RowOf(type, step->row, layer, 0).data(), view.k_stride);
        std::memcpy(view.ValueOf(step->row), RowOf(type, step->row, layer, 1).data(),
                    view.v_stride);
        for (const KeptRunView& run : view.kept) {
          for (uint32_t i = 0; i < run.rows * kHeads; ++i) {
            const uint32_t head = i % kHeads, slot = i / kHeads;
            const uint32_t row = run.positions[head * run.head_stride + slot];
            const uint64_t at = uint64_t{head} * kDim * ElementBytes(type);
            ExpectHead(RowOf(type, row, layer, 0), at, run.k + uint64_t{slot} * run.k_stride);
            ExpectHead(RowOf(type, row, layer, 1), at, run.v + uint64_t{slot} * run.v_stride);
            if (layer == 1) kept.push_back(row * kHeads + head);
          }
        }
      }
      const absl::Status committed = sequence->Commit({{7}});
      EXPECT_TRUE(committed.ok()) << MessageOf(committed);
    }
    std::sort(kept.begin(), kept.end());
    return kept;
  }
  static void ExpectHead(const std::vector<std::byte>& want, uint64_t at, const std::byte* row) {
    EXPECT_EQ(std::memcmp(want.data() + at, row + at, want.size() / kHeads), 0);
  }
};

TEST_P(RowTypesTest, WhatIsKeptHasItsBytesAndIsChosenAsInF32) {
  const std::unique_ptr<Session> session = Connect();
  for (const char* retention : {"streamingllm:start_size=4,recent_size=30,positions=original",
                                "sepllm:form=static,init_cache_size=3,local_size=20",
                                "knorm:max_capacity=40,recent_size=8"}) {
    SCOPED_TRACE(retention);
    const std::vector<uint32_t> kept = KeptAfter(*session, GetParam(), retention, 150);
    EXPECT_GE(kept.size(), 3U);
    EXPECT_EQ(kept, KeptAfter(*session, KvType::kF32, retention, 150));
  }
}

TEST_P(RowTypesTest, AnotherTypeIsAnotherModel) {
  const std::unique_ptr<Session> session = Connect();
  const absl::StatusOr<ModelHandle> model = session->RegisterModel(Spec(GetParam()));
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  for (const KvType other : {KvType::kF16, KvType::kBF16, KvType::kF32, KvType::kF8E4M3}) {
    const absl::StatusOr<ModelHandle> beside = session->RegisterModel(Spec(other));
    ASSERT_TRUE(beside.ok()) << MessageOf(beside.status());
    EXPECT_EQ(beside->fingerprint == model->fingerprint, other == GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Types, RowTypesTest,
                         ::testing::Values(KvType::kF16, KvType::kBF16, KvType::kF32,
                                           KvType::kF8E4M3));

}  // namespace
}  // namespace kvasir::testing
