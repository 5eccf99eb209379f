// Clients that break the protocol of shared memory and of the data socket: the one session ends, it
// is counted, and a session beside it goes on.
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kDaemonAbi = "daemon=" + std::to_string(shm::kAbiVersion);

class BadClientTest : public DaemonFixture {
 protected:
  void SetUp() override {
    Config config = MakeConfig();
    config.limits.hello_timeout_ms = 100;
    StartServer(config);
  }

  RawDataSocket MakeSocket() {
    absl::StatusOr<RawDataSocket> socket = RawDataSocket::Connect(folder_.path() + "/data.sock");
    EXPECT_TRUE(socket.ok()) << MessageOf(socket.status());
    return *std::move(socket);
  }
  RawEngine MakeEngine() {
    return RawEngine(folder_.path() + "/control.sock", folder_.path() + "/data.sock", 1);
  }
  uint64_t Violations() { return server_->Snapshot().tenants[0].violations; }

  // Sends `bytes` of a spoilt hello and expects a refusal and the end.
  void ExpectRefusal(const std::function<void(shm::Hello&)>& spoil, uint64_t bytes,
                     absl::StatusCode code, const std::vector<std::string>& texts) {
    RawDataSocket socket = MakeSocket();
    struct {
      shm::Hello hello = GoodHello();
      uint64_t more = 0;
    } message;
    spoil(message.hello);
    ASSERT_TRUE(socket.Send(&message, bytes).ok());
    shm::Refusal refusal{};
    const absl::StatusOr<ReceivedMessage> answer = socket.Receive(&refusal, sizeof(refusal));
    ASSERT_TRUE(answer.ok()) << MessageOf(answer.status());
    ASSERT_EQ(answer->bytes, sizeof(refusal));
    EXPECT_TRUE(answer->fds.empty());
    EXPECT_EQ(refusal.code, static_cast<int>(code));
    EXPECT_EQ(refusal.abi_min, shm::kAbiVersion);
    EXPECT_EQ(refusal.abi_max, shm::kAbiVersion);
    for (const std::string& text : texts) EXPECT_THAT(refusal.text, HasSubstr(text));
    EXPECT_TRUE(socket.IsHungUp());
  }
};

TEST_F(BadClientTest, Hellos) {
  const auto nothing = [](shm::Hello&) {};
  const auto malformed = absl::StatusCode::kInvalidArgument;
  ExpectRefusal(nothing, sizeof(shm::Hello) - 1, malformed, {"bytes=23", "expected=24"});
  ExpectRefusal(nothing, 1, malformed, {"bytes=1"});
  ExpectRefusal(nothing, sizeof(shm::Hello) + 8, malformed, {"hello is malformed"});
  ExpectRefusal([](shm::Hello& h) { h.magic ^= 1; }, sizeof(shm::Hello), malformed, {"hello"});
  ExpectRefusal([](shm::Hello& h) { h.kind = 4; }, sizeof(shm::Hello), malformed, {"hello"});
  ExpectRefusal([](shm::Hello& h) { h.reserved = 1; }, sizeof(shm::Hello), malformed, {"hello"});
  const auto version = absl::StatusCode::kFailedPrecondition;
  ExpectRefusal(
      [](shm::Hello& h) {
        h.abi_min = shm::kAbiVersion + 1;
        h.abi_max = 90;
      },
      sizeof(shm::Hello), version, {"client_max=90", kDaemonAbi});
  ExpectRefusal([](shm::Hello& h) { h.abi_min = h.abi_max = 0; }, sizeof(shm::Hello), version,
                {"client_max=0", kDaemonAbi});
}

TEST_F(BadClientTest, ConnectionsWithoutAHelloAreClosed) {
  std::vector<RawDataSocket> silent;
  for (int i = 0; i < 70; ++i) silent.push_back(MakeSocket());  // more than may wait
  for (RawDataSocket& socket : silent) EXPECT_TRUE(socket.IsHungUp());
  EXPECT_NE(Connect(), nullptr);
}

TEST_F(BadClientTest, WordsAfterTheHelloEndTheSession) {
  RawEngine engine = MakeEngine();
  const v1::OpenSequenceResponse sequence = engine.Open("full");
  const shm::Hello again = GoodHello();
  ASSERT_TRUE(engine.data().Send(&again, sizeof(again)).ok());
  EXPECT_TRUE(engine.data().IsHungUp());
  EXPECT_EQ(engine.Sync(sequence, 0).code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(engine.data().header().session_state.load(),
            static_cast<uint32_t>(shm::SessionState::kEnded));
}

TEST_F(BadClientTest, LiesInTheDeskEndTheirSessionOnly) {
  struct Lie {
    std::string text;
    uint64_t rows, adopted;
  };
  RawEngine honest = MakeEngine();
  const v1::OpenSequenceResponse beside = honest.Open("full");
  honest.SetDesk(beside, 10, 1);
  ASSERT_TRUE(honest.Sync(beside, 0).ok());
  uint64_t violations = 0;
  for (const Lie& lie : {Lie{"desk rows out of bounds", 1'000'000, 1},
                         Lie{"desk rows out of bounds", ~uint64_t{0}, 1},
                         Lie{"desk rows out of bounds", 4, 1},  // it had said 5
                         Lie{"adopted a version that does not exist", 5, 2},
                         Lie{"adopted a version that does not exist", 5, 0}}) {
    SCOPED_TRACE(lie.text);
    RawEngine liar = MakeEngine();
    const v1::OpenSequenceResponse sequence = liar.Open("full");
    liar.SetDesk(sequence, 5, 1);
    ASSERT_TRUE(liar.Sync(sequence, 0).ok());
    liar.SetDesk(sequence, lie.rows, lie.adopted);
    const absl::Status ended = liar.Sync(sequence, 0);
    EXPECT_EQ(ended.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(MessageOf(ended), HasSubstr(lie.text));
    EXPECT_TRUE(liar.data().IsHungUp());
    EXPECT_EQ(liar.data().header().session_state.load(),
              static_cast<uint32_t>(shm::SessionState::kEnded));
    EXPECT_EQ(Violations(), ++violations);
    honest.SetDesk(beside, 10 + violations, 1);
    EXPECT_TRUE(honest.Sync(beside, 0).ok());
  }
}

TEST_F(BadClientTest, TokensBeyondTheVocabularyEndTheSession) {
  RawEngine engine = MakeEngine();
  const v1::OpenSequenceResponse sequence = engine.Open("full");
  // The probe's extent holds the first recent group as well.
  const uint64_t granted = engine.data().board(sequence.sequence()).granted.load();
  ASSERT_GE(granted, 1U);
  engine.WriteToken(sequence, 0, 1000);
  engine.SetDesk(sequence, 1, 1);
  const absl::Status ended = engine.Sync(sequence, 0);
  EXPECT_EQ(ended.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(MessageOf(ended), AllOf(HasSubstr("token=1000"), HasSubstr("max=999")));
  EXPECT_EQ(Violations(), 1U);
}

TEST_F(BadClientTest, AStaleDeskIsIgnored) {
  RawEngine engine = MakeEngine();
  v1::OpenSequenceResponse sequence = engine.Open("full");
  v1::OpenSequenceResponse other = sequence;
  other.set_uid(sequence.uid() + 100);
  engine.SetDesk(other, ~uint64_t{0}, 99);  // a line of another life
  EXPECT_TRUE(engine.Sync(sequence, 0).ok());
  EXPECT_EQ(Violations(), 0U);
}

}  // namespace
}  // namespace kvasir::testing
