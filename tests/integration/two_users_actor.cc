// What the users of two_users_test do, as programs of their own: credentials and the rights to
// /proc are those of a fresh process. Parameters come in environment variables; the filter chooses
// the role.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "client/session.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <dirent.h>
#include <fmt/format.h>

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Variable(const char* name) {
  const char* text = std::getenv(name);
  return text != nullptr ? text : "";
}

ConnectOptions Options() {
  ConnectOptions options;
  options.control_socket = Variable("KVASIR_CONTROL");
  options.data_socket = Variable("KVASIR_DATA");
  return options;
}

RawEngine MakeRawEngine() {
  return RawEngine(Variable("KVASIR_CONTROL"), Variable("KVASIR_DATA"), 1);
}

std::atomic<bool> told_to_stop{false};

// Streams and checks its rows until it is told to stop; a session beside it lends its token to
// thieves.
TEST(Victim, SeesItsOwnRowsOnly) {
  ::signal(SIGTERM, [](int) { told_to_stop = true; });
  absl::StatusOr<RawDataSocket> raw = RawDataSocket::Connect(Variable("KVASIR_DATA"));
  ASSERT_TRUE(raw.ok()) << MessageOf(raw.status());
  ASSERT_TRUE(raw->Greet(GoodHello()).ok());
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(Options());
  ASSERT_TRUE(session.ok()) << MessageOf(session.status());
  const ModelSpec spec = TinySpec(1);
  const absl::StatusOr<ModelHandle> model = (*session)->RegisterModel(spec);
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  absl::StatusOr<Sequence> sequence =
      (*session)->OpenSequence({*model, "streamingllm:start_size=4,recent_size=40", 0, "victim"});
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  for (uint64_t row = 0; !told_to_stop || row < 200; ++row) {
    absl::StatusOr<StepView> step = sequence->Begin(1);
    ASSERT_TRUE(step.ok()) << MessageOf(step.status());
    WriteTestRows(*step, spec);
    ASSERT_EQ(VisibleRows(step->layers[0], row, 0, spec).size(), std::min<uint64_t>(row + 1, 44));
    ASSERT_FALSE(HasFailure());
    const absl::Status committed = sequence->Commit(std::vector<uint32_t>{7});
    ASSERT_TRUE(committed.ok()) << MessageOf(committed);
    if (row == 100) {
      fmt::print("token={}\nsequence={}\n", raw->token(), sequence->id());
      std::fflush(stdout);
    }
  }
}

void ExpectClosed(const std::string& pid) {
  const std::string folder = "/proc/" + pid;
  errno = 0;
  EXPECT_EQ(::opendir((folder + "/fd").c_str()), nullptr);
  EXPECT_EQ(errno, EACCES);
  for (int fd = 0; fd < 64; ++fd) {
    EXPECT_LT(::open(fmt::format("{}/fd/{}", folder, fd).c_str(), O_RDONLY), 0) << fd;
  }
  EXPECT_LT(::open((folder + "/mem").c_str(), O_RDONLY), 0);
  EXPECT_LT(::open((folder + "/maps").c_str(), O_RDONLY), 0);
}

TEST(Attacker, CannotOpenOthersDescriptors) {
  ExpectClosed(Variable("KVASIR_VICTIM_PID"));
  ExpectClosed(Variable("KVASIR_DAEMON_PID"));
}

// No way from a descriptor for reading to one for writing.
void ExpectReadOnly(int fd, uint64_t bytes) {
  EXPECT_EQ(::fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_EQ(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  void* map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_NE(::mprotect(map, bytes, PROT_READ | PROT_WRITE), 0);
  EXPECT_EQ(errno, EACCES);
  ::munmap(map, bytes);
  const char byte = 'x';
  EXPECT_LT(::pwrite(fd, &byte, 1, 0), 0);
  EXPECT_NE(::ftruncate(fd, 0), 0);
  EXPECT_NE(::fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
  const std::string path = fmt::format("/proc/self/fd/{}", fd);
  for (const int flags : {O_RDWR, O_WRONLY}) {
    EXPECT_LT(::open(path.c_str(), flags), 0);
    EXPECT_EQ(errno, EACCES);
  }
  EXPECT_NE(::chmod(path.c_str(), 0666), 0);
}

TEST(Attacker, CannotWriteWhatItWasLent) {
  // The way that is tried below works where it may: on a file of one's own.
  const int own = ::memfd_create("own", MFD_CLOEXEC);
  const int again = ::open(fmt::format("/proc/self/fd/{}", own).c_str(), O_RDWR);
  ASSERT_GE(again, 0);
  ::close(again);
  ::close(own);

  RawEngine engine = MakeRawEngine();
  ExpectReadOnly(engine.data().d_fd().get(), engine.data().header().segment_bytes);
  const v1::OpenSequenceResponse sequence = engine.Open("streamingllm:start_size=4,recent_size=8");
  for (int step = 0; step < 40; ++step) {
    const shm::SeqBoard& board = engine.data().board(sequence.sequence());
    const uint64_t newest = board.published.load();
    const uint64_t until = board.v[newest & 1].until_row;
    engine.SetDesk(sequence, std::min(board.granted.load(), until), newest);
    ASSERT_TRUE(engine.Sync(sequence, 0).ok());
    if (newest >= 2) break;
  }
  for (;;) {
    const absl::StatusOr<RawDataSocket::SentExtent> extent = engine.data().ReceiveExtent();
    ASSERT_TRUE(extent.ok()) << MessageOf(extent.status());
    if (extent->notice.extent_kind == static_cast<uint32_t>(shm::ExtentKind::kKept)) {
      ExpectReadOnly(extent->fd.get(), extent->notice.bytes);
      return;
    }
    EXPECT_NE(::ftruncate(extent->fd.get(), 0), 0);  // its own rows, but not their file's size
    EXPECT_NE(::fcntl(extent->fd.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
  }
}

TEST(Attacker, CannotUseAnothersToken) {
  RawCalls calls(Variable("KVASIR_CONTROL"), Variable("KVASIR_VICTIM_TOKEN"));
  v1::RegisterModelRequest model;
  *model.mutable_spec() = GoodSpec(1);
  v1::RegisterModelResponse registered;
  EXPECT_EQ(calls.Call(&v1::KvCache::Stub::RegisterModel, model, &registered).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  v1::SyncRequest sync;
  sync.add_needs()->set_uid(1);
  v1::SyncResponse synced;
  EXPECT_EQ(calls.Call(&v1::KvCache::Stub::Sync, sync, &synced).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  v1::CloseSequenceRequest close;
  close.set_uid(1);
  v1::CloseSequenceResponse closed;
  EXPECT_EQ(calls.Call(&v1::KvCache::Stub::CloseSequence, close, &closed).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST(Attacker, CannotNameAnothersSequences) {
  RawEngine engine = MakeRawEngine();
  for (uint32_t slot = 0; slot < 3; ++slot) {
    for (uint32_t uid = 0; uid < 4; ++uid) {
      v1::CloseSequenceRequest close;
      close.set_sequence(slot);
      close.set_uid(uid);
      v1::CloseSequenceResponse closed;
      EXPECT_EQ(engine.calls().Call(&v1::KvCache::Stub::CloseSequence, close, &closed).error_code(),
                grpc::StatusCode::NOT_FOUND);
    }
  }
  v1::InspectSequenceRequest inspect;
  inspect.set_sequence_id(std::stoull(Variable("KVASIR_VICTIM_SEQUENCE")));
  v1::InspectSequenceResponse inspected;
  std::vector<std::string> messages;
  for (const uint32_t layer : {0U, 9999U}) {  // a layer out of bounds must not betray it either
    inspect.set_layer(layer);
    const grpc::Status status =
        engine.calls().CallAdmin(&v1::Admin::Stub::InspectSequence, inspect, &inspected);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND) << status.error_message();
    messages.push_back(status.error_message());
  }
  EXPECT_EQ(messages[0], messages[1]);
}

TEST(Attacker, SeesItsOwnNumbersOnly) {
  RawCalls calls(Variable("KVASIR_CONTROL"), "");
  v1::GetStatsResponse stats;
  ASSERT_TRUE(calls.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).ok());
  ASSERT_EQ(stats.tenants_size(), 1);
  EXPECT_EQ(stats.tenants(0).tenant(), "attacker");
  EXPECT_EQ(stats.held_bytes(), 0U);
  EXPECT_EQ(stats.charged_bytes(), 0U);
  EXPECT_EQ(stats.pool_free_bytes(), 0U);
  v1::ListSequencesRequest list;
  v1::ListSequencesResponse listed;
  for (const char* tenant : {"", "victim"}) {
    list.set_tenant(tenant);
    ASSERT_TRUE(calls.CallAdmin(&v1::Admin::Stub::ListSequences, list, &listed).ok());
    EXPECT_EQ(listed.sequences_size(), 0);
  }
  v1::GetHitRateCurvesRequest asked;
  v1::GetHitRateCurvesResponse curves;
  ASSERT_TRUE(calls.CallAdmin(&v1::Admin::Stub::GetHitRateCurves, asked, &curves).ok());
  ASSERT_EQ(curves.curves_size(), 1);
  EXPECT_EQ(curves.curves(0).tenant(), "attacker");
  asked.set_tenant("victim");
  EXPECT_EQ(calls.CallAdmin(&v1::Admin::Stub::GetHitRateCurves, asked, &curves).error_code(),
            grpc::StatusCode::NOT_FOUND);
  v1::RecordTraceRequest record;
  record.set_tenant("victim");
  grpc::ClientContext context;
  const auto admin = v1::Admin::NewStub(calls.channel());
  EXPECT_EQ(admin->RecordTrace(&context, record)->Finish().error_code(),
            grpc::StatusCode::NOT_FOUND);
  v1::GetHostResponse host;
  EXPECT_EQ(calls.CallAdmin(&v1::Admin::Stub::GetHost, v1::GetHostRequest(), &host).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

// Every verb of the Admin service is in one of two lists: what acts or tells of the host is for
// administrators, and everything else tells a tenant of its own.
TEST(Attacker, AdministersNothing) {
  RawCalls calls(Variable("KVASIR_CONTROL"), "");
  std::vector<std::string> verbs;
  const auto refused = [&](const char* verb, auto method, const auto& request, auto response) {
    verbs.push_back(verb);
    const grpc::Status status = calls.CallAdmin(method, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << verb;
    EXPECT_THAT(status.error_message(), HasSubstr("for administrators")) << verb;
  };
  using Stub = v1::Admin::Stub;
  for (const char* tenant : {"victim", "attacker"}) {
    v1::DropPrefixesRequest drop;
    drop.set_tenant(tenant);
    refused("DropPrefixes", &Stub::DropPrefixes, drop, v1::DropPrefixesResponse());
    v1::DrainPrefixesRequest drain;
    drain.set_tenant(tenant);
    refused("DrainPrefixes", &Stub::DrainPrefixes, drain, v1::DrainPrefixesResponse());
  }
  v1::SetPoolSizeRequest size;
  size.set_pool_bytes(32 * kMiB);
  refused("SetPoolSize", &Stub::SetPoolSize, size, v1::SetPoolSizeResponse());
  v1::SetTenantBudgetRequest budget;
  budget.set_tenant("attacker");
  budget.mutable_budget()->set_weight(10'000);
  refused("SetTenantBudget", &Stub::SetTenantBudget, budget, v1::SetTenantBudgetResponse());
  refused("GetHost", &Stub::GetHost, v1::GetHostRequest(), v1::GetHostResponse());

  const auto told = [&](const char* verb, auto method, const auto& request, auto response) {
    verbs.push_back(verb);
    const grpc::Status status = calls.CallAdmin(method, request, &response);
    EXPECT_TRUE(status.ok()) << verb << ": " << status.error_message();
    EXPECT_EQ(response.DebugString().find("victim"), std::string::npos) << response.DebugString();
    return response;
  };
  told("GetStats", &Stub::GetStats, v1::GetStatsRequest(), v1::GetStatsResponse());
  told("ListSequences", &Stub::ListSequences, v1::ListSequencesRequest(),
       v1::ListSequencesResponse());
  told("ListSnapshots", &Stub::ListSnapshots, v1::ListSnapshotsRequest(),
       v1::ListSnapshotsResponse());
  told("ListPrefixes", &Stub::ListPrefixes, v1::ListPrefixesRequest(), v1::ListPrefixesResponse());
  told("ListPrefixLookups", &Stub::ListPrefixLookups, v1::ListPrefixLookupsRequest(),
       v1::ListPrefixLookupsResponse());
  told("GetHitRateCurves", &Stub::GetHitRateCurves, v1::GetHitRateCurvesRequest(),
       v1::GetHitRateCurvesResponse());
  told("ListPolicies", &Stub::ListPolicies, v1::ListPoliciesRequest(), v1::ListPoliciesResponse());
  const v1::ListTiersResponse tiers =
      told("ListTiers", &Stub::ListTiers, v1::ListTiersRequest(), v1::ListTiersResponse());
  ASSERT_EQ(tiers.tiers_size(), 1);
  EXPECT_EQ(tiers.tiers(0).tenants_size(), 1);
  EXPECT_EQ(tiers.tiers(0).capacity_bytes(), 0U);  // of all tenants together
  // Those that other tests here try: of a tenant, a sequence, or for ever.
  for (const char* verb : {"InspectSequence", "RecordTrace", "WatchPrefixes"})
    verbs.push_back(verb);
  const auto* const service =
      google::protobuf::DescriptorPool::generated_pool()->FindServiceByName("kvasir.v1.Admin");
  ASSERT_NE(service, nullptr);
  for (int i = 0; i < service->method_count(); ++i) {
    EXPECT_THAT(verbs, ::testing::Contains(service->method(i)->name()))
        << "a verb that is new: say here whom it is for";
  }
}

TEST(Attacker, WatchesItsOwnPrefixesOnly) {
  RawCalls calls(Variable("KVASIR_CONTROL"), "");
  const auto admin = v1::Admin::NewStub(calls.channel());
  v1::WatchPrefixesRequest request;
  request.set_tenant("victim");
  request.set_from_number(1);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const auto reader = admin->WatchPrefixes(&context, request);
  v1::PrefixEvent event;
  while (reader->Read(&event)) EXPECT_EQ(event.tenant(), "");  // KIND_LOST at most
}

TEST(Attacker, CannotTakeMoreThanItsLimit) {
  RawEngine engine = MakeRawEngine();
  const v1::OpenSequenceResponse sequence = engine.Open("full");
  const absl::Status status = engine.Sync(sequence, 60'000);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("tenant=attacker"), HasSubstr("wanted_bytes="),
                                       HasSubstr("charged_bytes="),
                                       HasSubstr(fmt::format("limit_bytes={}", 4 * kMiB))));
  v1::GetStatsResponse stats;
  ASSERT_TRUE(
      engine.calls().CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).ok());
  EXPECT_LE(stats.tenants(0).host().charged_bytes(), 4 * kMiB);
}

// Says whom the daemon takes it for, and stays until it is killed.
TEST(Teller, SaysWhoItIs) {
  absl::StatusOr<RawDataSocket> raw = RawDataSocket::Connect(Variable("KVASIR_DATA"));
  ASSERT_TRUE(raw.ok()) << MessageOf(raw.status());
  const absl::Status greeted = raw->Greet(GoodHello());
  RawCalls calls(Variable("KVASIR_CONTROL"), "");
  v1::GetStatsResponse stats;
  const grpc::Status status =
      calls.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats);
  std::string scope = "none";
  if (status.ok()) {
    scope = stats.pool_bytes() != 0 ? "all" : stats.tenants(0).tenant();
  } else {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << status.error_message();
  }
  v1::GetHostResponse host;
  const grpc::Status asked =
      calls.CallAdmin(&v1::Admin::Stub::GetHost, v1::GetHostRequest(), &host);
  EXPECT_EQ(asked.ok(), scope == "all");
  fmt::print("session={}\nsees={}\ntoken={}\n",
             greeted.ok() ? "open" : absl::StatusCodeToString(greeted.code()), scope, raw->token());
  std::fflush(stdout);
  for (;;) ::pause();
}

TEST(Stranger, IsRefused) {
  const absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(Options());
  EXPECT_EQ(session.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(MessageOf(session.status()), HasSubstr(fmt::format("uid={}", ::getuid())));
  RawCalls calls(Variable("KVASIR_CONTROL"), Variable("KVASIR_VICTIM_TOKEN"));
  v1::GetStatsResponse stats;
  EXPECT_EQ(calls.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  v1::SyncRequest sync;
  sync.add_needs()->set_uid(1);
  v1::SyncResponse synced;
  EXPECT_EQ(calls.Call(&v1::KvCache::Stub::Sync, sync, &synced).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

}  // namespace
}  // namespace kvasir::testing
