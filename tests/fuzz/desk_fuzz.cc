// What an engine may write at any time, as the core reads it: desks, ids and rows in recent blocks,
// reports. Whatever lies there, the core goes on, or ends the session that has written it; its
// books balance, and another tenant's rows are as they were written. The input is a sequence of
// stores and calls of a liar, of steps of an honest engine, and of jobs.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/log.h"
#include "tests/core/fake_engine.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/fuzz_options.h"

namespace {

using namespace kvasir;        // NOLINT(google-build-using-namespace): a program of one file
using namespace kvasir::core;  // NOLINT(google-build-using-namespace)
using core::testing::FakeEngine;
using fuzz::Input;
using fuzz::Require;

constexpr std::array kRetentions = {
    "full",
    "full+int8:rows=32,recent=5",
    "window:size=24",
    "sepllm:form=static,init_cache_size=2,local_size=20",
    "sepllm:form=sepcache,init_cache_size=4,sep_cache_size=8,local_size=16,cache_size=48",
    "streamingllm:start_size=4,recent_size=40",
    "h2o:hh_size=6,recent_size=4,evict_interval=3",
    "tova:max_capacity=9,evict_interval=1",
    "knorm:max_capacity=24,recent_size=3",
    "gemfilter:filter_layer=0,topk=3",
    "infllm:n_init=0,n_local=4,block_size=4,topk=1,repr_topk=1,max_cached_block=1,"
    "exc_block_size=1"};

class World {
 public:
  explicit World(const char* retention) : retention_(retention) {
    CoreConfig config;
    config.tenants = {{"liar", {1}, 4 * kMiB, "full"}, {"honest", {2}, 4 * kMiB, "full"}};
    config.eviction = "lru";  // what it learns is not looked at, and takes most of the time
    config.session_limits = limits_;
    config.first_extent_bytes = 32 * kKiB;
    config.extent_bytes = 64 * kKiB;
    core_ = std::make_unique<KvCore>(config, *pool_);
    liar_ = std::make_unique<FakeEngine>(*core_, limits_, 1);
    honest_ = std::make_unique<FakeEngine>(*core_, limits_, 2);
    const absl::StatusOr<uint32_t> model = liar_->RegisterModel(2);
    const absl::StatusOr<uint32_t> other = honest_->RegisterModel(2);
    Require(model.ok() && other.ok());
    model_ = *model;
    absl::StatusOr<FakeEngine::Stream> stream = honest_->Open(*other, "window:size=24");
    Require(stream.ok());
    truth_ = *std::move(stream);
    OpenLie();
  }
  ~World() {
    if (liar_->open()) core_->EndSession(liar_->session_id());
    if (job_ != nullptr) core_->FinishJob(std::move(job_));
    RunJobs();
    Require(core_->IsGone(liar_->session_id()));
    StepHonest();
    Require(core_->CheckConservation().ok());
    core_->EndSession(honest_->session_id());
    for (const TenantReport& tenant : core_->TenantReports()) {
      Require(tenant.held_bytes == 0 || tenant.snapshots > 0);  // which outlive the session
    }
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void Step(Input& input) {
    const uint64_t what = input.Number(1) % 16;
    if (what == 0) {
      StepHonest();
    } else if (what == 1) {
      RunJobs();
    } else if (what == 2) {  // one job, that others overtake
      if (job_ != nullptr) core_->FinishJob(std::move(job_));
      job_ = core_->TakeJob();
      if (job_ != nullptr) core::Run(*job_);
    } else if (liar_->open() && lie_) {
      Lie(what, input);
    } else {
      return;
    }
    Require(core_->CheckConservation().ok());
    Require(honest_->open());
  }

 private:
  void RunJobs() {
    while (std::unique_ptr<SequenceJob> job = core_->TakeJob()) {
      core::Run(*job);
      core_->FinishJob(std::move(job));
    }
  }

  // Adds failures, which end the process, where it sees what it has not written.
  void StepHonest() {
    for (int row = 0; row < 5; ++row) {
      if (honest_->Writable(truth_) > 0) honest_->WriteRow(truth_, 3);
      honest_->WriteDesk(truth_);
      Require(honest_->Sync(truth_, truth_.rows + 1, truth_.rows).status.ok());
      RunJobs();
    }
    for (uint32_t layer = 0; layer < 2; ++layer) {
      (void)honest_->VisibleRows(truth_, truth_.rows, layer);
    }
  }

  void OpenLie() {
    lie_.reset();
    absl::StatusOr<FakeEngine::Stream> stream = liar_->Open(model_, retention_);
    if (stream.ok()) lie_ = *std::move(stream);
    asked_.fill(false);
  }

  template <typename Answer>
  void Done(const Answer& answer, size_t kind) {
    if (answer.ready || !answer.status.ok()) asked_[kind] = false;
  }
  // As an engine does after a call that gave its sequence a new uid.
  void StartOver(uint64_t rows, uint32_t uid) {
    lie_->uid = uid;
    lie_->rows = rows;
    lie_->adopted = liar_->board(lie_->slot).published.load();
  }

  void WriteHonestly(uint64_t rows) {
    for (uint64_t i = 0; i < rows && liar_->open(); ++i) {
      if (liar_->Writable(*lie_) == 0) {
        liar_->WriteDesk(*lie_);
        (void)liar_->Sync(*lie_, lie_->rows + 1, lie_->rows);
        if (job_ == nullptr) RunJobs();
      }
      if (!liar_->open() || liar_->Writable(*lie_) == 0) return;
      liar_->WriteRow(*lie_, static_cast<uint32_t>(i % 5));
    }
    if (liar_->open()) liar_->WriteDesk(*lie_);
  }

  static void Poke(std::span<std::byte> memory, Input& input) {
    if (memory.size() < 8) return;
    const uint64_t off = input.Number(3) % (memory.size() - 7);
    const uint64_t value = input.Number(8);
    std::memcpy(memory.data() + off, &value, 8);
  }

  void Lie(uint64_t what, Input& input) {
    FakeEngine::Stream& stream = *lie_;
    Session& session = liar_->session();
    const uint32_t slot = stream.slot, uid = stream.uid;
    switch (what) {
      case 3:  // any bytes of any desk
        return Poke({reinterpret_cast<std::byte*>(&liar_->desk(0)), 4 * sizeof(shm::SeqDesk)},
                    input);
      case 4: {  // a little beside the truth
        shm::SeqDesk& desk = liar_->desk(slot);
        desk.rows.store(stream.rows + static_cast<uint64_t>(static_cast<int8_t>(input.Number(1))));
        desk.adopted.store(stream.adopted +
                           static_cast<uint64_t>(static_cast<int8_t>(input.Number(1)) % 3));
        desk.uid.store(uid);
        return;
      }
      case 5:  // rows, ids, positions and mass of the block at work
        if (stream.rows % 16 != 0) Poke(liar_->GroupOf(stream, stream.rows - 1), input);
        return;
      case 6:
        if (stream.report != nullptr) Poke({stream.report, stream.report_geometry.bytes}, input);
        return;
      case 7:
        return WriteHonestly(input.Number(1) % 64);
      case 8: {
        const bool far = input.Number(1) % 4 == 0;
        const uint64_t rows = far ? input.Number(8) : stream.rows + input.Number(1);
        const std::optional<uint64_t> table =
            input.Number(1) % 2 == 0 ? std::nullopt : std::optional<uint64_t>(input.Number(2));
        (void)liar_->Sync(stream, rows, table);
        return;
      }
      case 9: {
        const uint64_t rows = input.Number(1) % 4 == 0 ? input.Number(8) : input.Number(1);
        const TruncateAnswer answer = core_->Truncate(session, slot, uid, rows);
        if (answer.status.ok() && answer.ready) StartOver(rows, answer.uid);
        return;
      }
      case 10: {
        const SelectAnswer answer = core_->SelectRows(session, slot, uid, &asked_[0]);
        if (answer.ready || !answer.status.ok()) asked_[0] = false;
        if (answer.status.ok() && answer.ready) StartOver(0, answer.uid);
        return;
      }
      case 11:
        Done(core_->Retrieve(session, slot, uid, static_cast<uint32_t>(input.Number(1) % 4),
                             input.Number(1), &asked_[1]),
             1);
        return;
      case 12: {
        SnapshotId id{};
        id.bytes[0] = static_cast<uint8_t>(input.Number(1));
        Done(core_->SaveSequence(session, slot, uid, id, Instant(), &asked_[2]), 2);
        return;
      }
      case 13:
        Done(core_->PublishPrefix(session, slot, uid, &asked_[3]), 3);
        return;
      case 14:
        (void)core_->CloseSequence(session, slot, uid);
        if (liar_->open()) OpenLie();
        return;
      default:  // another's names
        (void)core_->Truncate(session, static_cast<uint32_t>(input.Number(4)),
                              static_cast<uint32_t>(input.Number(4)), 0);
    }
  }

  const std::string retention_;
  const SessionLimits limits_{8, 4, 64, 8, 1 << 10, 128 * kKiB};
  std::unique_ptr<HostPool> pool_ = core::testing::MakeTestPool(8 * kMiB);
  std::unique_ptr<KvCore> core_;
  std::unique_ptr<FakeEngine> liar_, honest_;
  uint32_t model_ = 0;
  std::optional<FakeEngine::Stream> lie_;
  FakeEngine::Stream truth_;
  std::unique_ptr<SequenceJob> job_;  // has run, and is not taken back
  std::array<bool, 4> asked_{};       // whether a call of the kind is asked again
};

}  // namespace

// Six times as fast: the weights that it leaves out are kept for each of a hundred thousand
// features.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  return kvasir::fuzz::AddOption("-entropic=0", argc, argv);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 1024) return 0;
  GTEST_FLAG_SET(throw_on_failure, true);
  spdlog::set_level(spdlog::level::off);
  Input input(data, size);
  World world(kRetentions[input.Number(1) % kRetentions.size()]);
  while (!input.empty()) world.Step(input);
  return 0;
}
