#include "engine/private_kv_store.h"

#include <cstring>
#include <set>
#include <vector>

#include <gmock/gmock.h>

#include "base/error.h"
#include "tests/engine/engine_support.h"

namespace kvasir::engine::testing {
namespace {

using ::testing::HasSubstr;

constexpr KvGeometry kGeometry = {
    .layers = 3, .slots_per_block = 16, .k_row_bytes = 256, .v_row_bytes = 128};

TEST(PrivateKvStore, RowsHaveTheirOwnBytes) {
  const auto store = ValueOrDie(PrivateKvStore::Create(kGeometry, 40));
  const StepView step = ValueOrDie(store->Begin(100));
  EXPECT_EQ(step.count, 40U);
  ASSERT_EQ(step.layers.size(), 3U);
  std::set<const std::byte*> seen;
  for (const LayerView& layer : step.layers) {
    for (uint64_t row = 0; row < step.count; ++row) {
      EXPECT_TRUE(seen.insert(layer.KeyOf(row)).second);
      EXPECT_TRUE(seen.insert(layer.ValueOf(row)).second);
      std::memset(layer.KeyOf(row), 1, kGeometry.k_row_bytes);
      std::memset(layer.ValueOf(row), 2, kGeometry.v_row_bytes);
    }
    for (uint64_t row = 0; row < step.count; ++row) {  // no row wrote over another's
      EXPECT_EQ(layer.KeyOf(row)[255], std::byte{1});
      EXPECT_EQ(layer.ValueOf(row)[0], std::byte{2});
    }
  }
}

TEST(PrivateKvStore, CountsRowsAndBytes) {
  const auto store = ValueOrDie(PrivateKvStore::Create(kGeometry, 100));
  EXPECT_EQ(ValueOrDie(store->Usage()).held_bytes, 0U);
  (void)ValueOrDie(store->Begin(17));
  ASSERT_TRUE(store->Commit(std::vector<uint32_t>(17, 1)).ok());
  const KvUsage usage = ValueOrDie(store->Usage());
  EXPECT_EQ(usage.tokens_seen, 17U);
  EXPECT_EQ(usage.tokens_kept, 17U);
  EXPECT_EQ(usage.held_bytes, 2U * 20480);  // 3 * 16 * 384 = 18432, in pages 20480
}

TEST(PrivateKvStore, RowsStayWhereTheyAre) {
  const auto store = ValueOrDie(PrivateKvStore::Create(kGeometry, 100));
  const std::byte* first = ValueOrDie(store->Begin(1)).layers[2].KeyOf(0);
  ASSERT_TRUE(store->Commit(std::vector<uint32_t>{7}).ok());
  const StepView step = ValueOrDie(store->Begin(90));
  EXPECT_EQ(step.row, 1U);
  EXPECT_EQ(step.layers[2].KeyOf(0), first);
}

TEST(PrivateKvStore, UncommittedRowsAreForgotten) {
  const auto store = ValueOrDie(PrivateKvStore::Create(kGeometry, 100));
  (void)ValueOrDie(store->Begin(5));
  EXPECT_EQ(ValueOrDie(store->Begin(5)).row, 0U);
  ASSERT_TRUE(store->Commit(std::vector<uint32_t>(3)).ok());
  EXPECT_EQ(store->rows(), 3U);
  EXPECT_FALSE(store->Commit(std::vector<uint32_t>(1)).ok());  // no step is open
}

TEST(PrivateKvStore, Truncate) {
  const auto store = ValueOrDie(PrivateKvStore::Create(kGeometry, 100));
  (void)ValueOrDie(store->Begin(10));
  ASSERT_TRUE(store->Commit(std::vector<uint32_t>(10)).ok());
  EXPECT_EQ(store->Truncate(11).code(), absl::StatusCode::kOutOfRange);
  ASSERT_TRUE(store->Truncate(4).ok());
  EXPECT_EQ(store->rows(), 4U);
  EXPECT_EQ(ValueOrDie(store->Begin(1)).row, 4U);
}

TEST(PrivateKvStore, Errors) {
  const auto store = ValueOrDie(PrivateKvStore::Create(kGeometry, 2));
  EXPECT_EQ(store->Begin(0).status().code(), absl::StatusCode::kInvalidArgument);
  (void)ValueOrDie(store->Begin(2));
  EXPECT_EQ(store->Commit(std::vector<uint32_t>(3)).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(store->Commit(std::vector<uint32_t>(2)).ok());
  EXPECT_THAT(MessageOf(store->Begin(1).status()), HasSubstr("rows=2 max_rows=2"));
  ASSERT_TRUE(store->Close().ok());
  EXPECT_EQ(store->Begin(1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ValueOrDie(store->Usage()).held_bytes, 0U);
}

TEST(PrivateKvStore, GeometryOutOfBounds) {
  KvGeometry bad = kGeometry;
  bad.layers = 0;
  EXPECT_THAT(MessageOf(PrivateKvStore::Create(bad, 10).status()), HasSubstr("layers=0"));
  bad = kGeometry;
  bad.slots_per_block = 0xFFFFFFFF;
  EXPECT_THAT(MessageOf(PrivateKvStore::Create(bad, 10).status()), HasSubstr("too large"));
  EXPECT_FALSE(PrivateKvStore::Create(kGeometry, 0).ok());
}

}  // namespace
}  // namespace kvasir::engine::testing
