// A core of the tests that leaves its memory to the next one; the test runs its handover jobs.
#ifndef KVASIR_TESTS_HANDOVER_HANDOVER_FIXTURE_H_
#define KVASIR_TESTS_HANDOVER_HANDOVER_FIXTURE_H_

#include <fcntl.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/handover/run_handover_job.h"
#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {

class HandoverCoreTest : public PrefixCoreTest {
 protected:
  FakeEngine& ConnectToHandover(uint32_t uid, uint32_t* model,
                                const ModelDescription& description = RotatedModel()) {
    FakeEngine& engine = ConnectOwn(uid, model, description);
    engine.run_tiers = [this] { RunHandover(); };
    return engine;
  }

  // PrefixCoreTest's.
  static ChainHasher::Secret Secret() {
    ChainHasher::Secret secret{};
    secret.fill(7);
    return secret;
  }

  // What a thread of the daemon does with a job.
  void Run(HandoverJob& job) {
    switch (job.kind) {
      case HandoverJob::Kind::kVerify:
        for (const HandoverJob::Item& item : job.items) VerifyGroup(item, job);
        break;
      case HandoverJob::Kind::kNote:
        DigestGroups(job);
        for (const HandoverJob::Item& item : job.items) {
          const Extent& extent = *item.at.group().extent;
          if (!kept_.contains(extent.id())) kept_[extent.id()] = *extent.Duplicate();
        }
        job.record = next_record_++;
        records_[job.record] = *EncodeHandoverRecord(job, Secret());
        break;
      case HandoverJob::Kind::kForget:
        EXPECT_EQ(records_.erase(job.record), 1U);
        break;
      case HandoverJob::Kind::kRehome:
        CopyGroups(job);
        break;
    }
  }

  // Every job that there is; how many of each kind.
  std::map<HandoverJob::Kind, int> RunHandover() {
    std::map<HandoverJob::Kind, int> count;
    while (std::unique_ptr<HandoverJob> job = core_->TakeHandoverJob()) {
      ExpectConserved();
      ++count[job->kind];
      Run(*job);
      core_->FinishHandoverJob(std::move(job));
      ExpectConserved();
    }
    return count;
  }

  // The process dies; the next one has what was written down and kept.
  AdoptionCounts NextLife(uint64_t limit_bytes = 6 * kMiB) {
    pool_->set_returned(nullptr);  // what the dead process gives back the manager still keeps
    core_.reset();
    engines_.clear();
    Adoption adoption;
    for (const auto& [number, payload] : records_) {
      absl::StatusOr<Adoption::Prefix> prefix = DecodeHandoverRecord(payload, Secret());
      EXPECT_TRUE(prefix.ok()) << MessageOf(prefix.status());
      if (!prefix.ok()) continue;
      if (on_decoded_) on_decoded_(prefix->prefix);
      prefix->record = number;
      for (const auto& lane : prefix->prefix.lanes) {
        for (const StoredPrefix::Run& run : lane) {
          if (adoption.extents.contains(run.extent) || !kept_.contains(run.extent)) continue;
          UniqueFd copy(::fcntl(kept_.at(run.extent).get(), F_DUPFD_CLOEXEC, 0));
          absl::StatusOr<std::unique_ptr<Extent>> extent =
              Extent::Adopt(std::move(copy), run.extent_bytes, run.extent);
          EXPECT_TRUE(extent.ok()) << MessageOf(extent.status());
          adopted_bytes_ += run.extent_bytes;
          adoption.extents[run.extent] = *std::move(extent);
        }
      }
      adoption.prefixes.push_back(*std::move(prefix));
    }
    adopts_ = true;
    Start(limit_bytes);
    adopted_bytes_ = 0;
    pool_->set_returned([this](uint64_t id) { kept_.erase(id); });
    const AdoptionCounts counts = core_->Adopt(std::move(adoption));
    ExpectConserved();
    return counts;
  }

  void Configure(CoreConfig& config) override {
    if (!adopts_) return;
    TierConfig adopted;
    adopted.name = "handover";
    adopted.adopted = true;
    config.tiers = {adopted};
  }
  std::unique_ptr<HostPool> MakePool() override {
    HostPoolOptions options;
    options.pool_bytes = 16 * kMiB;
    options.extent_bytes = 64 * kKiB;
    options.small_extent_bytes = 16 * kKiB;
    options.lock = Demand::kOff;
    options.adopted_bytes = adopted_bytes_;
    options.first_id = 1000 * ++lives_;
    return *HostPool::Create(options, nullptr);
  }

  // Of kept rows of the first tenant, with those of a prompt's last few that no border has.
  uint64_t KeptBytes() const { return (*core_->TenantOf({1}))->kept.held_bytes(); }
  size_t PrefixesIn(const std::string& place) const {
    size_t count = 0;
    for (const PrefixReport& report : core_->PrefixReports()) count += report.place == place;
    return count;
  }
  // Of the first tenant, with at most this share of their groups.
  size_t FrozenExtents(double share_max = 1) const {
    size_t count = 0;
    for (const auto& [bytes, allocator] : (*core_->TenantOf({1}))->kept.by_bytes()) {
      for (const GroupAllocator::Frozen& frozen : allocator->FrozenExtents()) {
        count += frozen.share <= share_max;
      }
    }
    return count;
  }
  size_t SparseExtents() const { return FrozenExtents(0.5); }

  std::map<uint64_t, std::string> records_;
  std::map<uint64_t, UniqueFd> kept_;  // extents, by id
  uint64_t next_record_ = 1;
  uint64_t adopted_bytes_ = 0;
  uint64_t lives_ = 0;
  // Changes what the next life is told.
  std::function<void(StoredPrefix&)> on_decoded_;
  bool adopts_ = false;
};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_HANDOVER_HANDOVER_FIXTURE_H_
