// A manifest says again what was stored; whatever else is in it is refused.
#include "daemon/store/prefix_manifest.h"

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kvasir/v1/prefix_manifest.pb.h"
#include "tests/store/store_fixture.h"

namespace kvasir::core::testing {
namespace {

class ManifestTest : public StoreTest {
 protected:
  // Of a prefix of 192 rows.
  std::string Manifest() {
    uint32_t model = 0;
    FakeEngine& engine = ConnectToTiers(1, &model);
    Store(engine, model, "full", Tokens(203, 3), {{5, "image"}, {70, "other image"}});
    EXPECT_TRUE(core_->StartDrain("").ok());
    std::unique_ptr<TierJob> job = core_->TakeTierJob(0, TierLane::kWrites);
    CancelToken cancel;
    RunTierJob(*job, *tier_, secret(), cancel);
    ManifestParts parts{job->tokens, job->state, {}, /*in_memory=*/false};
    for (const TierJob::Item& item : job->items) parts.runs.push_back({&item.at, item.digest});
    const std::string text = EncodeManifest(*job->snapshot, parts, secret());
    core_->FinishTierJob(std::move(job));
    return text;
  }

  absl::Status Changed(const std::string& text,
                       const std::function<void(v1::PrefixManifest&)>& change) const {
    v1::SealedManifest sealed;
    EXPECT_TRUE(sealed.ParseFromString(text));
    v1::PrefixManifest manifest;
    EXPECT_TRUE(manifest.ParseFromString(sealed.manifest()));
    change(manifest);
    return DecodeManifest(SealManifest(manifest.SerializeAsString(), secret()), secret()).status();
  }
};

TEST_F(ManifestTest, SaysAgainWhatWasStored) {
  const absl::StatusOr<StoredPrefix> prefix = DecodeManifest(Manifest(), secret());
  ASSERT_TRUE(prefix.ok()) << MessageOf(prefix.status());
  EXPECT_EQ(prefix->facts.rows, 192U);
  EXPECT_EQ(prefix->facts.chain->rows(), 192U);
  EXPECT_EQ(prefix->facts.chain->ExtrasOf(0, 192).size(), 2U);
  EXPECT_EQ(prefix->facts.retention, "full");
  EXPECT_EQ(prefix->facts.model.layers.size(), kLayers);
  uint64_t rows = 0;
  for (const StoredPrefix::Run& run : prefix->lanes.at(0)) rows += run.rows;
  EXPECT_EQ(rows, 192U);
}

TEST_F(ManifestTest, OfAnotherSecretIsRefused) {
  const std::string text = Manifest();
  ChainHasher::Secret other{};
  EXPECT_EQ(DecodeManifest(text, other).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ManifestTest, EveryFieldIsChecked) {
  const std::string text = Manifest();
  EXPECT_TRUE(Changed(text, [](v1::PrefixManifest&) {}).ok());
  const std::vector<std::function<void(v1::PrefixManifest&)>> changes = {
      [](auto& m) { m.set_version(3); },
      [](auto& m) { m.set_scope("short"); },
      [](auto& m) { m.set_scope(std::string(16, 'x')); },
      [](auto& m) { m.set_form(std::string(17, 'x')); },
      [](auto& m) { m.set_last_key(std::string(16, 'x')); },
      [](auto& m) { m.clear_tokens(); },
      [](auto& m) { m.add_tokens(1); },
      [](auto& m) { m.set_tokens(3, 1'000'000); },
      [](auto& m) { m.set_tokens(3, m.tokens(3) ^ 1); },
      [](auto& m) { m.mutable_extras(0)->set_row(6); },
      [](auto& m) { m.mutable_extras(0)->set_digest(""); },
      [](auto& m) { m.clear_model(); },
      [](auto& m) { m.mutable_model()->mutable_layers(0)->set_kv_heads(3); },
      [](auto& m) { m.mutable_model()->set_slots_per_block(17); },
      [](auto& m) { m.mutable_model()->set_prefill_rows_per_s(-1); },
      [](auto& m) { m.set_model_fingerprint(std::string(16, 'x')); },
      [](auto& m) { m.add_lane_of_layer(0); },
      [](auto& m) { m.set_lane_of_layer(0, 1); },
      [](auto& m) { m.clear_lanes(); },
      [](auto& m) { m.add_lanes(); },
      [](auto& m) { m.mutable_lanes(0)->mutable_runs(0)->set_rows(0); },
      [](auto& m) { m.mutable_lanes(0)->mutable_runs(0)->set_rows(17); },
      [](auto& m) { m.mutable_lanes(0)->mutable_runs(0)->set_bytes(0); },
      [](auto& m) { m.mutable_lanes(0)->mutable_runs(0)->set_bytes(uint64_t{1} << 62); },
      [](auto& m) { m.mutable_lanes(0)->mutable_runs(0)->set_digest("x"); },
      [](auto& m) { m.mutable_lanes(0)->mutable_runs()->RemoveLast(); },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    const absl::Status refused = Changed(text, changes[i]);
    EXPECT_FALSE(refused.ok()) << "change " << i;
    EXPECT_FALSE(MessageOf(refused).empty());
  }
}

// A layout that another build has made, say.
TEST_F(ManifestTest, WhatDoesNotFitTheModelsGroupsIsAMissOnce) {
  StoredPrefix prefix = *DecodeManifest(Manifest(), secret());
  ASSERT_EQ(*core_->DropPrefixes("a"), 2U);
  prefix.lanes[0][0].bytes += 4096;
  ASSERT_TRUE(core_->AddStored(0, **core_->TenantOf({1}), std::move(prefix)).ok());
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  const std::vector<TokenExtra> extras = {{5, "image"}, {70, "other image"}};
  EXPECT_EQ(RowsAttached(engine, model, "full", Tokens(203, 3), extras), 0U);
  EXPECT_EQ(Report().counters.load_failures, 1U);
  EXPECT_EQ(Report().prefixes, 0U);
}

TEST_F(ManifestTest, ACutOneIsRefusedAtEveryLength) {
  const std::string text = Manifest();
  for (size_t length = 0; length < text.size(); ++length) {
    EXPECT_FALSE(DecodeManifest(std::string_view(text).substr(0, length), secret()).ok()) << length;
  }
}

}  // namespace
}  // namespace kvasir::core::testing
