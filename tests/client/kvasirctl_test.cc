// kvasirctl as a whole, against a daemon's Admin service that the test plays over a Unix socket.
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "base/posix.h"
#include "client/ctl/command_line.h"
#include "client/ctl/commands.h"
#include "kvasir/v1/admin.grpc.pb.h"

#include <nlohmann/json.hpp>

namespace kvasir::ctl {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uint64_t kSequences = 1500;  // more than one page of what kvasirctl asks for
constexpr uint64_t kRows = 10'000;

class FakeAdmin final : public v1::Admin::Service {
 public:
  grpc::Status GetStats(grpc::ServerContext* context, const v1::GetStatsRequest*,
                        v1::GetStatsResponse* response) override {
    if (hang) {
      // Until the caller's deadline, and no longer.
      while (!context->IsCancelled()) std::this_thread::yield();
      return grpc::Status::CANCELLED;
    }
    response->set_version("9.9");
    response->set_held_bytes(9007199254740993);  // does not fit a double
    response->add_tenants()->set_tenant("a");
    return grpc::Status::OK;
  }

  grpc::Status ListSequences(grpc::ServerContext*, const v1::ListSequencesRequest* request,
                             v1::ListSequencesResponse* response) override {
    if (request->tenant() == "stuck") {
      response->set_next_page_token(5);
      return grpc::Status::OK;
    }
    const uint64_t first = request->page_token() + 1;
    const uint64_t last = std::min<uint64_t>(kSequences, first + request->page_size() - 1);
    for (uint64_t id = first; id <= last; ++id) {
      response->add_sequences()->set_sequence_id(id);
      response->mutable_sequences()->rbegin()->set_tenant(request->tenant());
    }
    if (last < kSequences) response->set_next_page_token(last);
    return grpc::Status::OK;
  }

  grpc::Status ListSnapshots(grpc::ServerContext*, const v1::ListSnapshotsRequest* request,
                             v1::ListSnapshotsResponse* response) override {
    response->add_snapshots()->set_tenant(request->tenant());
    return grpc::Status::OK;
  }

  grpc::Status ListPrefixes(grpc::ServerContext*, const v1::ListPrefixesRequest* request,
                            v1::ListPrefixesResponse* response) override {
    response->add_prefixes()->set_tenant(request->tenant());
    return grpc::Status::OK;
  }

  grpc::Status ListPrefixLookups(grpc::ServerContext*, const v1::ListPrefixLookupsRequest*,
                                 v1::ListPrefixLookupsResponse* response) override {
    for (const uint64_t id : {11U, 12U}) response->add_lookups()->set_sequence_id(id);
    return grpc::Status::OK;
  }

  grpc::Status GetHitRateCurves(grpc::ServerContext*, const v1::GetHitRateCurvesRequest* request,
                                v1::GetHitRateCurvesResponse* response) override {
    response->add_curves()->set_tenant(request->tenant());
    return grpc::Status::OK;
  }

  grpc::Status DropPrefixes(grpc::ServerContext*, const v1::DropPrefixesRequest* request,
                            v1::DropPrefixesResponse* response) override {
    if (request->tenant() != "a") return {grpc::StatusCode::NOT_FOUND, "unknown tenant"};
    response->set_dropped(3);
    return grpc::Status::OK;
  }

  grpc::Status WatchPrefixes(grpc::ServerContext*, const v1::WatchPrefixesRequest* request,
                             grpc::ServerWriter<v1::PrefixEvent>* writer) override {
    for (uint64_t number = request->from_number(); number < 1000; ++number) {
      v1::PrefixEvent event;
      event.set_number(number);
      event.set_kind(v1::PrefixEvent::KIND_STORED);
      event.set_tenant("a");
      if (!writer->Write(event)) return grpc::Status::OK;
    }
    return {grpc::StatusCode::UNAVAILABLE, "the daemon is stopping"};
  }

  grpc::Status InspectSequence(grpc::ServerContext*, const v1::InspectSequenceRequest* request,
                               v1::InspectSequenceResponse* response) override {
    if (request->sequence_id() != 12) {
      return {grpc::StatusCode::NOT_FOUND,
              "unknown sequence: id=" + std::to_string(request->sequence_id()) + "\x1b[2J"};
    }
    response->mutable_info()->set_sequence_id(12);
    response->set_layers(2);
    uint64_t row = request->first_row();
    const uint64_t end = std::min<uint64_t>(kRows, row + request->max_rows());
    for (; row < end; ++row) {
      auto* entry = response->add_rows();
      entry->set_row(row);
      entry->set_text(std::to_string(row) + " ");
      entry->set_kept(request->layer() == 1);
    }
    if (end < kRows) response->set_next_row(end);
    return grpc::Status::OK;
  }

  grpc::Status ListPolicies(grpc::ServerContext*, const v1::ListPoliciesRequest*,
                            v1::ListPoliciesResponse* response) override {
    response->add_policies()->set_name("full");
    return grpc::Status::OK;
  }

  grpc::Status GetHost(grpc::ServerContext*, const v1::GetHostRequest*,
                       v1::GetHostResponse*) override {
    return {grpc::StatusCode::PERMISSION_DENIED, "administrators only: uid=1000"};
  }

  std::atomic<bool> hang{false};
};

struct Result {
  int exit_code = 0;
  std::string out;
  std::string err;
};

class KvasirctlTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/kvasirctl_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    socket_ = folder_ + "/control.sock";
  }
  void TearDown() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
    std::filesystem::remove_all(folder_);
  }

  void StartDaemon(bool with_health = true) {
    grpc::EnableDefaultHealthCheckService(with_health);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket_, grpc::InsecureServerCredentials());
    builder.RegisterService(&admin_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }

  Result Run(std::vector<std::string> arguments) {
    std::ostringstream out;
    std::ostringstream err;
    const int code = RunKvasirctl(std::move(arguments), {.socket = socket_}, out, err);
    return {code, out.str(), err.str()};
  }

  std::string folder_;
  std::string socket_;
  FakeAdmin admin_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(KvasirctlTest, StatsForPeopleAndForPrograms) {
  StartDaemon();
  const Result table = Run({"stats"});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, AllOf(StartsWith("kvasird      9.9\n"), HasSubstr("\nTENANT ")));
  const Result result = Run({"stats", "--output=json"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(json::parse(result.out)["held_bytes"], "9007199254740993");
  EXPECT_EQ(json::parse(Run({"--output=json", "tenants"}).out)["tenants"][0]["tenant"], "a");
}

TEST_F(KvasirctlTest, SequencesOfAllPagesAndOfOneTenant) {
  StartDaemon();
  const json all = json::parse(Run({"sequences", "--tenant=a", "--output=json"}).out);
  ASSERT_EQ(all["sequences"].size(), kSequences);
  EXPECT_EQ(all["sequences"][kSequences - 1]["sequence_id"], std::to_string(kSequences));
  EXPECT_EQ(all["sequences"][0]["tenant"], "a");
}

TEST_F(KvasirctlTest, ADaemonWhosePagesDoNotMoveOnIsAnError) {
  StartDaemon();
  const Result result = Run({"sequences", "--tenant=stuck"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("does not move on: page_token=5"));
}

TEST_F(KvasirctlTest, InspectShowsTheRangeThatWasAskedFor) {
  StartDaemon();
  const Result some = Run({"inspect", "12", "--layer=1", "--from=7", "--rows=3"});
  EXPECT_EQ(some.exit_code, 0) << some.err;
  EXPECT_THAT(some.out, HasSubstr("layer 1, rows 7 to 9: 3 of 3 kept"));
  EXPECT_THAT(some.out, HasSubstr("\n  [7 8 9 ]\n\nmore follows: --from=10\n"));
  const json all = json::parse(Run({"inspect", "12", "--rows=100000", "--output=json"}).out);
  ASSERT_EQ(all["rows"].size(), kRows);  // three calls
  EXPECT_EQ(all["rows"][kRows - 1]["row"], std::to_string(kRows - 1));
  EXPECT_EQ(all["next_row"], "0");
}

TEST_F(KvasirctlTest, TheDaemonsRefusalIsPrintedEscapedAndFails) {
  StartDaemon();
  const Result result = Run({"inspect", "13"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err, "kvasirctl: unknown sequence: id=13\\x1b[2J\n");
}

TEST_F(KvasirctlTest, Policies) {
  StartDaemon();
  EXPECT_EQ(Run({"policies"}).out, "full: \n  may be shared under a prefix hash: no\n");
}

TEST_F(KvasirctlTest, HealthIsZeroOnlyWhileTheDaemonServes) {
  StartDaemon();
  EXPECT_EQ(Run({"health"}).out, "SERVING\n");
  EXPECT_EQ(Run({"health"}).exit_code, 0);
  server_->GetHealthCheckService()->SetServingStatus(false);
  EXPECT_EQ(Run({"health", "--output=json"}).out, "{\"status\":\"NOT_SERVING\"}\n");
  EXPECT_EQ(Run({"health"}).exit_code, 1);
}

TEST_F(KvasirctlTest, DoctorUsesWhatTheDaemonSaysAndBearsItsRefusals) {
  StartDaemon();
  const Result result = Run({"doctor", "--output=json"});
  const json checks = json::parse(result.out)["checks"];
  EXPECT_EQ(checks[0]["finding"], "version 9.9 answers, pool of 0 B");
  EXPECT_EQ(checks[1]["finding"], socket_ + " may be opened by this user");
}

TEST_F(KvasirctlTest, SnapshotsAreThoseOfTheTenant) {
  StartDaemon();
  EXPECT_EQ(
      json::parse(Run({"prefixes", "--tenant=a", "--output=json"}).out)["prefixes"][0]["tenant"],
      "a");
  EXPECT_EQ(json::parse(Run({"explain", "12", "--output=json"}).out)["lookups"].size(), 1U);
  EXPECT_EQ(json::parse(Run({"explain", "--output=json"}).out)["lookups"].size(), 2U);
  EXPECT_EQ(Run({"explain", "13"}).exit_code, 1);
  EXPECT_EQ(json::parse(Run({"curve", "--tenant=a", "--output=json"}).out)["curves"][0]["tenant"],
            "a");
  EXPECT_EQ(Run({"curve", "--tenant=a"}).out, "tenant a: no prompt was asked with\n");
  EXPECT_EQ(Run({"evict", "--tenant=a"}).out, "3 prefixes given up\n");
  EXPECT_EQ(Run({"evict", "--tenant=b"}).exit_code, 1);
  EXPECT_EQ(Run({"evict"}).exit_code, 2);
  EXPECT_EQ(Run({"events", "--from=5", "--count=2"}).out,
            "5 stored tenant=a prefix=0 rows=0 chunks=0 retention=\n"
            "6 stored tenant=a prefix=0 rows=0 chunks=0 retention=\n");
  EXPECT_EQ(Run({"events", "--from=998"}).exit_code, 1);
  const json all = json::parse(Run({"snapshots", "--tenant=a", "--output=json"}).out);
  EXPECT_EQ(all["snapshots"][0]["tenant"], "a");
}

TEST_F(KvasirctlTest, WithoutADaemonEveryCommandSaysSo) {
  for (const char* command : {"stats", "tenants", "sequences", "snapshots", "policies", "health"}) {
    const Result result = Run({command});
    EXPECT_EQ(result.exit_code, 1) << command;
    EXPECT_EQ(result.out, "") << command;
    EXPECT_EQ(result.err, "kvasirctl: no daemon: socket=" + socket_ +
                              " reason=No such file or directory; is kvasird running?\n");
  }
  EXPECT_THAT(Run({"doctor"}).out, StartsWith("WARN  daemon: no daemon: socket=" + socket_));
}

TEST_F(KvasirctlTest, ALeftOverSocketFileAndAPlainFileAreTold) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_THAT(Run({"stats"}).err, HasSubstr("nobody answers at the socket: socket=" + socket_));
  std::filesystem::remove(socket_);
  std::ofstream(socket_) << "x";
  EXPECT_THAT(Run({"stats"}).err, HasSubstr("reason=not a socket"));
}

TEST_F(KvasirctlTest, ADaemonThatDoesNotAnswerEndsAtTheDeadline) {
  StartDaemon();
  admin_.hang = true;
  const Result result = Run({"stats", "--deadline=0.2"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, "kvasirctl: the daemon did not answer in time: socket=" + socket_ +
                            " deadline_ms=200\n");
}

TEST_F(KvasirctlTest, WrongUsageIsTwo) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"nope"},
      {"inspect"},
      {"inspect", "x"},
      {"inspect", "-1"},
      {"inspect", "1", "--rows=0"},
      {"inspect", "1", "--from=-1"},
      {"inspect", "1", "--layer=4294967296"},
      {"inspect", "18446744073709551616"},
      {"stats", "extra"},
      {"stats", "--output=xml"},
      {"stats", "--deadline=0"},
      {"stats", "--socket=" + std::string(108, 'a')},
      {"completion", "tcsh"},
      {"stats", "tenants"}};
  for (const auto& arguments : wrong) {
    const Result result = Run(arguments);
    EXPECT_EQ(result.exit_code, 2) << testing::PrintToString(arguments);
    EXPECT_EQ(result.out, "");
    EXPECT_NE(result.err, "");
  }
}

TEST_F(KvasirctlTest, HelpAndVersionAreResults) {
  EXPECT_THAT(Run({"--version"}).out, StartsWith("kvasirctl "));
  const Result help = Run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const std::string& name : CommandNames()) EXPECT_THAT(help.out, HasSubstr("  " + name));
  EXPECT_THAT(Run({"inspect", "--help"}).out, HasSubstr("--layer"));
}

TEST_F(KvasirctlTest, TheSocketOptionGoesBeforeTheEnvironment) {
  const auto parsed = ParseCommandLine({"stats", "--socket=/x"}, {.socket = "/y"});
  EXPECT_EQ(std::get<CommandLine>(parsed).socket, "/x");
  EXPECT_EQ(std::get<CommandLine>(ParseCommandLine({"stats"}, {.socket = "/y"})).socket, "/y");
  EXPECT_EQ(std::get<CommandLine>(ParseCommandLine({"stats"}, {})).socket, kDefaultSocket);
}

TEST_F(KvasirctlTest, ColoursAreForTerminalsOnly) {
  const auto color = [](std::vector<std::string> arguments, bool terminal) {
    return std::get<CommandLine>(
               ParseCommandLine(std::move(arguments), {.socket = "", .terminal = terminal}))
        .color;
  };
  EXPECT_TRUE(color({"stats"}, true));
  EXPECT_FALSE(color({"stats"}, false));
  EXPECT_TRUE(color({"stats", "--color=always"}, false));
  EXPECT_FALSE(color({"stats", "--color=never"}, true));
}

// Runs the script in bash with the given words, the last of which is being completed.
std::vector<std::string> Complete(const std::string& words) {
  const std::string script =
      "bash --norc -c 'source deploy/completion/kvasirctl.bash; COMP_WORDS=(" + words +
      "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _kvasirctl; printf \"%s\\n\" \"${COMPREPLY[@]}\"'";
  std::vector<std::string> found;
  FILE* pipe = ::popen(script.c_str(), "r");
  if (pipe == nullptr) return found;
  std::array<char, 256> line{};
  while (std::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr) {
    std::string text = line.data();
    text.erase(text.find_last_not_of('\n') + 1);
    if (!text.empty()) found.push_back(text);
  }
  EXPECT_EQ(::pclose(pipe), 0);
  return found;
}

TEST_F(KvasirctlTest, CompletionKnowsEveryCommandAndItsOptions) {
  std::ifstream file("deploy/completion/kvasirctl.bash");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(Run({"completion", "bash"}).out, text.str());
  std::vector<std::string> all = Complete("kvasirctl \"\"");
  for (const std::string& name : CommandNames()) EXPECT_THAT(all, testing::Contains(name));
  EXPECT_THAT(Complete("kvasirctl ins"), ElementsAre("inspect"));
  EXPECT_THAT(Complete("kvasirctl --output j"), ElementsAre("json"));
  EXPECT_THAT(Complete("kvasirctl stats --output = t"), ElementsAre("table"));
  EXPECT_THAT(Complete("kvasirctl inspect 12 --la"), ElementsAre("--layer"));
}

}  // namespace
}  // namespace kvasir::ctl
