// Unmodified llama.cpp on the daemon's memory: same logits, what is charged, what goes wrong.
#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/small_file.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The tiny model, or that of ./dev setup where KVASIR_PLUGIN_TEST asks for it.
std::string Model() {
  const char* const model = std::getenv("KVASIR_MODEL");
  return std::getenv("KVASIR_PLUGIN_TEST") == nullptr || model == nullptr
             ? "tests/data/tinylm/model.gguf"
             : model;
}

struct Ended {
  int status = 0;
  std::string output, errors;
};

class PluginTest : public DaemonFixture {
 protected:
  std::vector<std::string> Environment(const std::string& plugin = KVASIR_GGML_PLUGIN) const {
    return {"GGML_BACKEND_PATH=" + plugin,
            "KVASIR_CONTROL_SOCKET=" + folder_.path() + "/control.sock"};
  }
  static std::vector<std::string> Command(std::vector<std::string> options) {
    options.insert(options.begin(), {SiblingProgram("llama_program"), "model=" + Model()});
    return options;
  }

  static Ended Run(const std::vector<std::string>& options,
                   const std::vector<std::string>& environment) {
    ChildProcess process(Command(options), environment);
    Ended ended;
    ended.errors = process.ReadErrors();
    while (std::optional<std::string> line = process.ReadLine()) ended.output += *line + "\n";
    ended.status = process.Wait();
    return ended;
  }

  // All logits of a run, as bytes.
  std::string Logits(std::vector<std::string> options,
                     const std::vector<std::string>& environment) {
    const std::string path = folder_.path() + "/logits";
    options.push_back("logits=" + path);
    const Ended ended = Run(options, environment);
    EXPECT_EQ(ended.status, 0) << ended.errors;
    EXPECT_EQ(ended.output, "done\n");
    errors_ = ended.errors;
    absl::StatusOr<std::string> bytes = ReadSmallFile(path, size_t{1} << 30);
    EXPECT_TRUE(bytes.ok());
    return bytes.ok() ? *std::move(bytes) : "";
  }
  uint64_t Charged() { return server_->Snapshot().charged_bytes; }

  std::string errors_;  // of the last Logits()
};

// Waits until it has stopped, or ended.
bool HasStopped(const ChildProcess& process) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(process.pid()), &info, WSTOPPED | WEXITED | WNOWAIT) ==
             0 &&
         info.si_code == CLD_STOPPED;
}

// The lines that the plug-in says.
std::vector<std::string> Said(const std::string& errors) {
  std::vector<std::string> lines;
  for (size_t at = errors.find("kvasir: "); at != std::string::npos;
       at = errors.find("\nkvasir: ", at)) {
    if (errors[at] == '\n') ++at;
    lines.push_back(errors.substr(at, errors.find('\n', at) - at));
    ++at;
  }
  return lines;
}

struct Form {
  const char* flash;
  const char* type;
};
class PluginLogits : public PluginTest, public ::testing::WithParamInterface<Form> {};
INSTANTIATE_TEST_SUITE_P(All, PluginLogits,
                         ::testing::Values(Form{"on", "f16"}, Form{"off", "f16"}, Form{"on", "f32"},
                                           Form{"off", "f32"}, Form{"on", "q8_0"}));

TEST_P(PluginLogits, AreBitForBitThoseWithoutIt) {
  const std::vector<std::string> options = {std::string("fa=") + GetParam().flash,
                                            std::string("kv=") + GetParam().type};
  const std::string plain = Logits(options, {});
  EXPECT_THAT(errors_, HasSubstr("CPU KV buffer"));
  const std::string shared = Logits(options, Environment());
  EXPECT_THAT(errors_, HasSubstr("KVASIR KV buffer"));
  EXPECT_THAT(errors_, Not(HasSubstr("CPU KV buffer")));
  EXPECT_GE(plain.size(), size_t{100 + 64} * 1536 * sizeof(float));
  EXPECT_TRUE(plain == shared);
  EXPECT_THAT(Said(errors_), ::testing::IsEmpty());
}

TEST_F(PluginTest, TheCacheIsChargedAndNothingElse) {
  ChildProcess process(Command({"stay=1", "context=2048"}), Environment());
  ASSERT_EQ(process.ReadLine().value_or(""), "ready") << process.ReadErrors();
  // 4 MiB of rows in blocks of 2 MiB and a page.
  EXPECT_EQ(server_->Snapshot().held_bytes, 2 * (2 * kMiB + 4096));
  EXPECT_GE(Charged(), 4 * kMiB);
  EXPECT_LT(Charged(), 8 * kMiB);
  process.Signal(SIGKILL);
  EXPECT_EQ(process.Wait(), -SIGKILL);
  ExpectNothingCharged();
}

TEST_F(PluginTest, WeightsAreMappedAndNotRead) {
  Logits({}, Environment());
  EXPECT_THAT(errors_, HasSubstr("CPU_Mapped model buffer"));
  EXPECT_THAT(errors_, Not(HasSubstr("KVASIR model buffer")));
}

// A layer's device is not that of its attention, so llama.cpp's own choice is to do without.
TEST_F(PluginTest, FlashAttentionHasToBeAskedFor) {
  const std::string automatic = Logits({"fa=auto"}, Environment());
  EXPECT_THAT(errors_, HasSubstr("Flash Attention not supported, set to disabled"));
  EXPECT_TRUE(automatic == Logits({"fa=off"}, {}));
}

TEST_F(PluginTest, LayersThatAreNotOffloadedStayInPrivateMemory) {
  Logits({"layers=0"}, Environment());
  EXPECT_THAT(errors_, HasSubstr("CPU KV buffer"));
  EXPECT_THAT(errors_, Not(HasSubstr("KVASIR KV buffer")));
}

TEST_F(PluginTest, WithoutADaemonLlamaGoesOnInItsOwnMemory) {
  server_.reset();
  const std::string shared = Logits({}, Environment());
  ASSERT_EQ(Said(errors_).size(), 1U) << errors_;
  EXPECT_THAT(Said(errors_)[0],
              ::testing::MatchesRegex("kvasir: the KV cache stays in llama.cpp's own memory: no "
                                      "session with kvasird: .*KVASIR_CONTROL_SOCKET=.*"));
  EXPECT_THAT(errors_, HasSubstr("CPU KV buffer"));
  EXPECT_TRUE(shared == Logits({}, {}));
}

TEST_F(PluginTest, ALimitThatIsTooSmallEndsInOneLine) {
  Config config = MakeConfig();
  config.tenants[0].limit_bytes = 8 * kMiB;
  StartServer(config);
  const Ended ended = Run({"context=32768"}, Environment());  // 64 MiB
  EXPECT_EQ(ended.status, 3) << ended.errors;
  ASSERT_EQ(Said(ended.errors).size(), 1U) << ended.errors;
  EXPECT_THAT(Said(ended.errors)[0],
              ::testing::MatchesRegex("kvasir: no memory for llama.cpp: kvasird has [0-9]+ MiB of "
                                      "the 64 MiB that llama.cpp asks for: .*"));
  ExpectNothingCharged();
}

TEST_F(PluginTest, AnotherBackendInterfaceIsRefusedByBothNumbers) {
  const std::string plain = Logits({}, {});
  EXPECT_TRUE(plain == Logits({}, Environment(KVASIR_GGML_PLUGIN_OTHER_API)));
  EXPECT_THAT(errors_, ::testing::ContainsRegex(
                           "incompatible API version \\(backend: 99, current: [0-9]+\\)"));
  EXPECT_THAT(errors_, HasSubstr("CPU KV buffer"));
}

TEST_F(PluginTest, AnotherGgmlIsRefusedByBothVersions) {
  const std::string plain = Logits({}, {});
  EXPECT_TRUE(plain == Logits({}, Environment(KVASIR_GGML_PLUGIN_OTHER_GGML)));
  ASSERT_EQ(Said(errors_).size(), 1U) << errors_;
  EXPECT_THAT(Said(errors_)[0],
              ::testing::MatchesRegex(".*: this plug-in is built for ggml 9.9 \\(backend interface "
                                      "[0-9]+\\), and this is ggml 0\\..*KVASIR_ANY_GGML=1.*"));
  std::vector<std::string> all_the_same = Environment(KVASIR_GGML_PLUGIN_OTHER_GGML);
  all_the_same.emplace_back("KVASIR_ANY_GGML=1");
  EXPECT_TRUE(plain == Logits({}, all_the_same));
  EXPECT_THAT(errors_, HasSubstr("KVASIR KV buffer"));
}

// What the daemon ended may be somebody else's by the next step.
TEST_F(PluginTest, MemoryThatIsLostEndsTheProcess) {
  ChildProcess process(Command({"stay=stop"}), Environment());
  ASSERT_TRUE(HasStopped(process));
  server_.reset();  // ends its sessions
  process.Signal(SIGCONT);
  const std::string errors = process.ReadErrors();
  EXPECT_EQ(process.Wait(), -SIGABRT) << errors;
  ASSERT_EQ(Said(errors).size(), 1U) << errors;
  EXPECT_THAT(Said(errors)[0], HasSubstr("the KV cache is lost, so this process ends: the daemon "
                                         "ended the session"));
}

// What is mapped stays until nobody maps it, and who is dead gives it to nobody.
TEST_F(PluginTest, ADaemonThatIsKilledIsNotMissed) {
  server_.reset();
  const std::string plain = Logits({}, {});
  DaemonProcess daemon(folder_.path());
  ASSERT_TRUE(daemon.Start(MakeConfig()));
  const std::string path = folder_.path() + "/logits";
  ChildProcess process(Command({"stay=stop", "logits=" + path}), Environment());
  ASSERT_TRUE(HasStopped(process));
  daemon.process().Signal(SIGKILL);
  EXPECT_EQ(daemon.process().Wait(), -SIGKILL);
  process.Signal(SIGCONT);
  const std::string errors = process.ReadErrors();
  EXPECT_EQ(process.Wait(), 0) << errors;
  EXPECT_THAT(Said(errors), ::testing::IsEmpty());
  const absl::StatusOr<std::string> bytes = ReadSmallFile(path, size_t{1} << 30);
  ASSERT_TRUE(bytes.ok());
  EXPECT_TRUE(plain == *bytes);
}

}  // namespace
}  // namespace kvasir::testing
