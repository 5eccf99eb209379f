// Rows in the memory of a device: what an engine sees there is bit for bit what it sees in host
// memory; budgets, refusals, and what comes back. Neither side follows an address of the device:
// on host memory that stands in for one it could not. The same suite runs on a GPU.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "device/host/host_device.h"
#include "tests/integration/device_rows_fixture.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

class DeviceRowsTest : public DeviceRowsFixture {
 protected:
  // The same stream in both memories, with truncations. `spec`: of rows as long as TinySpec()'s.
  void StreamBoth(const std::string& retention, uint64_t rows, uint64_t seed,
                  const ModelSpec& spec = TinySpec(kLayers)) {
    SCOPED_TRACE(retention);
    const std::unique_ptr<Session> session = ConnectWith(device_.get());
    const absl::StatusOr<ModelHandle> host = session->RegisterModel(spec);
    ASSERT_TRUE(host.ok()) << MessageOf(host.status());
    const absl::StatusOr<ModelHandle> there = session->RegisterModel(DeviceSpec(spec));
    ASSERT_TRUE(there.ok()) << MessageOf(there.status());
    absl::StatusOr<Sequence> one = session->OpenSequence({*host, retention, 0, "host"});
    ASSERT_TRUE(one.ok()) << MessageOf(one.status());
    absl::StatusOr<Sequence> other = session->OpenSequence({*there, retention, 0, "device"});
    ASSERT_TRUE(other.ok()) << MessageOf(other.status());
    std::mt19937_64 random(seed);
    std::vector<uint32_t> ids(rows);
    for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 8);
    Seen seen_here, seen_there;
    for (uint64_t end = 0; end < rows && !HasFatalFailure();) {
      end = std::min(rows, end + 1 + random() % 40);
      const auto batch = static_cast<uint32_t>(1 + random() % 24);
      Extend(*one, ids, end, false, batch, &seen_here);
      Extend(*other, ids, end, true, batch, &seen_there);
      ASSERT_EQ(seen_there, seen_here) << "rows " << end;
      // How far one can go back depends on what is compacted already: each as far as it gets.
      const uint64_t target = end - random() % std::min<uint64_t>(end, 20);
      (void)one->Truncate(target);
      (void)other->Truncate(target);
    }
    EXPECT_EQ(kept_rows_ > 0, retention != "full" && retention != "window:size=40");
    kept_rows_ = 0;
    EXPECT_GT(Pool().charged_bytes, 0U);
    const absl::StatusOr<Sequence::Footprint> footprint = other->MeasureFootprint();
    ASSERT_TRUE(footprint.ok()) << MessageOf(footprint.status());
    const TenantSnapshot tenant = server_->Snapshot().tenants.at(0);
    EXPECT_EQ(tenant.devices.at(0).charged_bytes, Pool().charged_bytes);
    EXPECT_GT(tenant.devices.at(0).held_bytes, 0U);
    EXPECT_LE(tenant.devices.at(0).held_bytes + Pool().waste_bytes, Pool().charged_bytes);
  }

  absl::Status Open(Session& session, const ModelHandle& model, const std::string& retention) {
    OpenOptions options;
    options.model = model;
    options.retention = retention;
    options.reads_records = true;
    return session.OpenSequence(options).status();
  }
};

TEST_F(DeviceRowsTest, AnEngineSeesWhatItSeesInHostMemory) {
  uint64_t seed = 1;
  for (const char* retention :
       {"full", "window:size=40", "streamingllm:start_size=4,recent_size=37",
        "streamingllm:start_size=4,recent_size=30,positions=unrotated",
        "sepllm:form=static,init_cache_size=3,local_size=40",
        "sepllm:form=static,init_cache_size=2,local_size=20/50x2",
        "sepllm:form=sepcache,init_cache_size=2,sep_cache_size=6,local_size=20,cache_size=60",
        "sepllm:form=manager,init_cache_size=3,sep_cache_size=20,local_size=33,cache_size=150,"
        "positions=original",
        "sepllm:form=manager,init_cache_size=3,sep_cache_size=20,local_size=33,cache_size=150",
        "fixllm:init_cache_size=4,local_size=40,delta=3",
        "sinks:size=4|separators|window:size=30"}) {
    StreamBoth(retention, 400, seed++);
    if (HasFatalFailure()) return;
  }
}

// As many bytes a row, whatever numbers they are: keys are turned, NaN and all.
TEST_F(DeviceRowsTest, RowsOfFp8AreSeenAsInHostMemory) {
  ModelSpec spec = TinySpec(kLayers);
  spec.kv_type = KvType::kF8E4M3;
  for (LayerSpec& layer : spec.layers) layer.kv_heads *= 2;
  uint64_t seed = 1;
  for (const char* retention :
       {"full", "streamingllm:start_size=4,recent_size=37",
        "sepllm:form=manager,init_cache_size=3,sep_cache_size=20,local_size=33,cache_size=150"}) {
    StreamBoth(retention, 300, seed++, spec);
    if (HasFatalFailure()) return;
  }
}

TEST_F(DeviceRowsTest, WhatADeviceCannotDoIsRefusedByName) {
  const std::unique_ptr<Session> session = ConnectWith(device_.get());
  const absl::StatusOr<ModelHandle> model = session->RegisterModel(DeviceSpec());
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  for (const auto& [retention, text] :
       {std::pair("full+int8", "encoded rows"),
        std::pair("knorm:max_capacity=40,recent_size=8", "by scores"),
        std::pair("h2o:hh_size=12,recent_size=8", "by scores"),
        std::pair("gemfilter:filter_layer=1,topk=20", "selection"),
        std::pair("infllm:n_init=4,n_local=24,block_size=8,topk=2,repr_topk=2,max_cached_block=3,"
                  "exc_block_size=8,cache_strategy=lru-s",
                  "retrieval")}) {
    const absl::Status status = Open(*session, *model, retention);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << retention;
    EXPECT_THAT(MessageOf(status), HasSubstr(text)) << retention;
    EXPECT_THAT(MessageOf(status), HasSubstr("device=gpu0")) << retention;
  }
}

// Saved by one session and published by it; another goes on from both and sees the same bytes.
TEST_F(DeviceRowsTest, AnotherSessionGoesOnFromWhatOneHasWritten) {
  std::vector<uint32_t> ids(300);
  std::mt19937_64 random(7);
  for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 8);
  constexpr uint64_t kRows = 150;
  for (const char* retention : {"full", "streamingllm:start_size=4,recent_size=37"}) {
    SCOPED_TRACE(retention);
    const std::unique_ptr<Session> session = ConnectWith(device_.get());
    const absl::StatusOr<ModelHandle> model = session->RegisterModel(DeviceSpec());
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    OpenOptions options;
    options.model = *model;
    options.retention = retention;
    options.prefix.emplace();
    options.prefix->tokens = ids;
    options.prefix->rows_max = kRows;
    absl::StatusOr<Sequence> first = session->OpenSequence(options);
    ASSERT_TRUE(first.ok()) << MessageOf(first.status());
    ASSERT_EQ(first->rows(), 0U);
    Seen seen;
    Extend(*first, ids, kRows, true, 16, &seen);
    const absl::StatusOr<Sequence::Published> published = first->PublishPrefix();
    ASSERT_TRUE(published.ok()) << MessageOf(published.status());
    const absl::StatusOr<Snapshot> saved = first->Save();
    ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
    Extend(*first, ids, ids.size(), true, 16, &seen);

    const std::unique_ptr<Session> other = ConnectWith(device_.get());
    const absl::StatusOr<ModelHandle> same = other->RegisterModel(DeviceSpec());
    ASSERT_TRUE(same.ok()) << MessageOf(same.status());
    options.model = *same;
    absl::StatusOr<Sequence> attached = other->OpenSequence(options);
    ASSERT_TRUE(attached.ok()) << MessageOf(attached.status());
    EXPECT_EQ(attached->rows(), retention == std::string("full") ? 144U : kRows);
    OpenOptions from;
    from.model = *same;
    from.snapshot = saved->id;
    absl::StatusOr<Sequence> resumed = other->OpenSequence(from);
    ASSERT_TRUE(resumed.ok()) << MessageOf(resumed.status());
    ASSERT_EQ(resumed->rows(), kRows);
    for (Sequence* const one : {&*attached, &*resumed}) {
      const uint64_t begin = one->rows();
      Seen again;
      Extend(*one, ids, ids.size(), true, 16, &again);
      ASSERT_FALSE(HasFatalFailure());
      again.erase(again.begin(), again.begin() + static_cast<ptrdiff_t>(begin));
      EXPECT_EQ(again, Seen(seen.begin() + static_cast<ptrdiff_t>(begin), seen.end()));
    }
    EXPECT_TRUE(other->DropSnapshot(saved->id).ok());
  }
  EXPECT_GT(server_->Snapshot().tenants.at(0).prefixes, 0U);
  SharedCore& shared = server_->shared_for_test();
  MutexLock lock(shared.mutex);
  EXPECT_GT(*shared.core.DropPrefixes(""), 0U);
}

TEST_F(DeviceRowsTest, ASequenceWhoseRowsDidNotComeBackIsNotOpened) {
  if (!OnHost()) GTEST_SKIP() << "faults are made on host memory alone";
  const std::unique_ptr<Session> session = ConnectWith(device_.get());
  const absl::StatusOr<ModelHandle> model = session->RegisterModel(DeviceSpec());
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  absl::StatusOr<Sequence> sequence = session->OpenSequence({*model, "window:size=40", 0, ""});
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  Seen seen;
  Extend(*sequence, std::vector<uint32_t>(50, 3), 50, true, 16, &seen);
  auto& faulty = dynamic_cast<device::HostDevice&>(server_->device_for_test(0).device());
  faulty.FailCopiesForTest(0, 1);
  EXPECT_EQ(sequence->Save().status().code(), absl::StatusCode::kInternal);
  const absl::StatusOr<Snapshot> saved = sequence->Save();
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  OpenOptions from;
  from.model = *model;
  from.snapshot = saved->id;
  faulty.FailCopiesForTest(0, 1);
  const absl::Status failed = session->OpenSequence(from).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(failed), HasSubstr("as a test asked for"));
  EXPECT_TRUE(session->OpenSequence(from).ok());
  EXPECT_TRUE(session->DropSnapshot(saved->id).ok());
}

TEST_F(DeviceRowsTest, APoolThatIsNotThereIsRefused) {
  const std::unique_ptr<Session> session = Connect();
  ModelSpec spec = TinySpec(1);
  spec.pool = "gpu1";
  const absl::Status status = session->RegisterModel(spec).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(status), HasSubstr("known=gpu0"));
  spec.pool = std::string(65, 'x');
  EXPECT_EQ(session->RegisterModel(spec).status().code(), absl::StatusCode::kInvalidArgument);
  // Half a MiB a row and layer, 128 slots: more than is proved by way of the daemon's own memory.
  spec = DeviceSpec();
  for (LayerSpec& layer : spec.layers) layer.kv_heads = layer.query_heads = 128;
  for (LayerSpec& layer : spec.layers) layer.k_head_dim = layer.v_head_dim = 1024;
  spec.slots_per_block = 128;
  EXPECT_THAT(MessageOf(session->RegisterModel(spec).status()), HasSubstr("max=67108864"));
}

TEST_F(DeviceRowsTest, AnEngineWithoutTheDeviceIsToldSo) {
  const auto other = device::HostDevice::Create({.uuid = "host-other"});
  ASSERT_TRUE(other.ok()) << MessageOf(other.status());
  for (device::Device* device :
       {static_cast<device::Device*>(nullptr), static_cast<device::Device*>(other->get())}) {
    const std::unique_ptr<Session> session = ConnectWith(device);
    const absl::Status status = session->RegisterModel(DeviceSpec()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(MessageOf(status), HasSubstr("uuid=" + device_->facts().uuid));
  }
}

TEST_F(DeviceRowsTest, ALimitOfTheDeviceHolds) {
  Config config = ConfigWithPool();
  config.tenants[0].gpus[0].limit_bytes = 4 * kMiB;
  StartServer(config);
  const std::unique_ptr<Session> session = ConnectWith(device_.get());
  const absl::StatusOr<ModelHandle> model = session->RegisterModel(DeviceSpec());
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  absl::StatusOr<Sequence> sequence = session->OpenSequence({*model, "full", 0, ""});
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  absl::Status status;
  const std::vector<uint32_t> ids(16, 3);
  for (int i = 0; i < 4096 && status.ok(); ++i) {
    const absl::StatusOr<StepView> step = sequence->Begin(16);
    status = step.status();
    if (status.ok()) status = sequence->Commit(std::span(ids).first(step->count));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("limit_bytes=4194304"));
  EXPECT_LE(Pool().charged_bytes, 4 * kMiB);
  EXPECT_TRUE(RetryAfter(status).has_value());
}

// Rows that the daemon could not copy are an error of their sequence, and of nothing else.
TEST_F(DeviceRowsTest, ACopyThatFailsEndsItsSequenceAlone) {
  if (!OnHost()) GTEST_SKIP() << "faults are made on host memory alone";
  const std::unique_ptr<Session> session = ConnectWith(device_.get());
  const absl::StatusOr<ModelHandle> model = session->RegisterModel(DeviceSpec());
  const absl::StatusOr<ModelHandle> host = session->RegisterModel(TinySpec(kLayers));
  ASSERT_TRUE(model.ok() && host.ok());
  auto& faulty = dynamic_cast<device::HostDevice&>(server_->device_for_test(0).device());
  const auto run = [&](const ModelHandle& of, uint64_t rows) {
    absl::StatusOr<Sequence> sequence = session->OpenSequence(
        {of, "streamingllm:start_size=4,recent_size=20,positions=original", 0, ""});
    absl::Status status = sequence.status();
    for (uint64_t row = 0; row < rows && status.ok(); ++row) {
      const absl::StatusOr<StepView> step = sequence->Begin(1);
      status = step.status();
      if (!status.ok()) break;
      status = sequence->Commit(std::vector<uint32_t>{3});
    }
    return status;
  };
  faulty.FailCopiesForTest(0, 1);
  const absl::Status failed = run(*model, 400);
  EXPECT_EQ(failed.code(), absl::StatusCode::kInternal) << MessageOf(failed);
  EXPECT_THAT(MessageOf(failed), HasSubstr("as a test asked for"));
  EXPECT_TRUE(run(*model, 200).ok());
  EXPECT_TRUE(run(*host, 200).ok());

  faulty.LoseForTest("fell off the bus");
  EXPECT_THAT(Pool().lost, HasSubstr("fell off the bus"));
  const absl::Status lost = run(*model, 400);
  EXPECT_EQ(lost.code(), absl::StatusCode::kUnavailable) << MessageOf(lost);
  EXPECT_THAT(MessageOf(lost), HasSubstr("fell off the bus"));
  EXPECT_TRUE(run(*host, 200).ok());
}

TEST_F(DeviceRowsTest, TwoSessionsOfATenantShareThePool) {
  const std::vector<uint32_t> ids(150, 3);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<Session>> sessions;
    std::vector<Sequence> sequences;
    for (int i = 0; i < 2; ++i) {
      sessions.push_back(ConnectWith(device_.get()));
      const absl::StatusOr<ModelHandle> model = sessions.back()->RegisterModel(DeviceSpec());
      ASSERT_TRUE(model.ok()) << MessageOf(model.status());
      absl::StatusOr<Sequence> sequence = sessions.back()->OpenSequence(
          {*model, "streamingllm:start_size=4,recent_size=20", 0, ""});
      ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
      sequences.push_back(*std::move(sequence));
    }
    Seen seen[2];
    for (uint64_t end = 10; end <= ids.size() && !HasFatalFailure(); end += 10) {
      for (size_t i = 0; i < 2; ++i) Extend(sequences[i], ids, end, true, 3, &seen[i]);
    }
    EXPECT_EQ(seen[0], seen[1]);
  }
}

}  // namespace
}  // namespace kvasir::testing
