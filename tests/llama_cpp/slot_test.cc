// kvasir-llama-slot: what llama.cpp saved in a file goes on in another process, by the daemon.
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/small_file.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

constexpr char kModel[] = "tests/data/tinylm/model.gguf";
constexpr size_t kVocabulary = 1536;

class SlotTest : public DaemonFixture {
 protected:
  struct Ended {
    int status = 0;
    std::string output, errors;
  };

  std::string File(const std::string& name) const { return folder_.path() + "/" + name; }

  Ended Run(std::vector<std::string> command, const std::vector<std::string>& more) const {
    command.insert(command.end(), more.begin(), more.end());
    ChildProcess process(command, {"KVASIR_CONTROL_SOCKET=" + File("control.sock")});
    Ended ended;
    ended.errors = process.ReadErrors();
    while (std::optional<std::string> line = process.ReadLine()) ended.output += *line;
    ended.status = process.Wait();
    return ended;
  }
  Ended Llama(const std::vector<std::string>& options) const {
    return Run({SiblingProgram("llama_program"), std::string("model=") + kModel}, options);
  }
  Ended Save(const std::string& file, const std::vector<std::string>& options = {}) const {
    return Run({SiblingProgram("kvasir-llama-slot"), "save", file, "--model", kModel}, options);
  }
  Ended Load(const std::string& file, const std::string& like,
             const std::vector<std::string>& options = {}) const {
    return Run({SiblingProgram("kvasir-llama-slot"), "load", file, "--model", kModel, "--like",
                like, "--tokens", File("tokens")},
               options);
  }
  // As llama-server's /tokenize answers, of the prompt that llama_program has.
  void WriteTokens(size_t count) const {
    std::ofstream out(File("tokens"));
    out << "{\"tokens\":[";
    for (size_t i = 0; i < count; ++i) {
      out << (i > 0 ? "," : "") << (i * 7919 + i * i * 31 + 5) % kVocabulary;
    }
    out << "]}";
  }
  // Logits of the last nine tokens of a run.
  std::string LastLogits(std::vector<std::string> options) const {
    options.insert(options.end(), {"prompt=129", "steps=8", "logits=" + File("logits")});
    const Ended ended = Llama(options);
    EXPECT_EQ(ended.status, 0);
    const absl::StatusOr<std::string> bytes = ReadSmallFile(File("logits"), size_t{1} << 30);
    const size_t tail = 9 * kVocabulary * sizeof(float);
    if (!bytes.ok() || bytes->size() < tail) {
      ADD_FAILURE() << "no logits";
      return "";
    }
    return bytes->substr(bytes->size() - tail);
  }

  void TearDown() override {
    v1::DropPrefixesResponse response;
    EXPECT_TRUE(RawCalls(File("control.sock"), "")
                    .CallAdmin(&v1::Admin::Stub::DropPrefixes, v1::DropPrefixesRequest(), &response)
                    .ok());
    DaemonFixture::TearDown();
  }
};

class SlotForms : public SlotTest, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, SlotForms, ::testing::Values("fa=on", "fa=off"));

TEST_P(SlotForms, GoesOnBitForBit) {
  ASSERT_EQ(Llama({GetParam(), "prompt=128", "steps=0", "packed=1", "save=" + File("slot")}).status,
            0);
  const Ended saved = Save(File("slot"));
  EXPECT_EQ(saved.output, "128") << saved.errors;
  // Another server, which has saved something of its own.
  ASSERT_EQ(Llama({GetParam(), "prompt=3", "steps=0", "save=" + File("like")}).status, 0);
  WriteTokens(129);
  const Ended loaded = Load(File("another"), File("like"));
  EXPECT_EQ(loaded.output, "128") << loaded.errors;
  EXPECT_TRUE(LastLogits({GetParam(), "load=" + File("another")}) == LastLogits({GetParam()}));
}

TEST_F(SlotTest, LayoutsAndSaltsNeverMeet) {
  ASSERT_EQ(Llama({"fa=on", "prompt=128", "steps=0", "save=" + File("on")}).status, 0);
  ASSERT_EQ(Llama({"fa=off", "prompt=3", "steps=0", "save=" + File("off")}).status, 0);
  ASSERT_EQ(Llama({"kv=q8_0", "prompt=3", "steps=0", "save=" + File("q8_0")}).status, 0);
  ASSERT_EQ(Save(File("on")).output, "128");
  WriteTokens(129);
  const auto refused = [](const Ended& ended) {
    EXPECT_EQ(ended.status, 1);
    EXPECT_THAT(ended.errors, EndsWith("nothing of these tokens is there\n"));
  };
  refused(Load(File("out"), File("off")));
  refused(Load(File("out"), File("q8_0")));
  refused(Load(File("out"), File("on"), {"--salt", "x"}));
  EXPECT_EQ(Load(File("out"), File("on")).output, "128");
  WriteTokens(100);
  EXPECT_EQ(Load(File("out"), File("on")).output, "96");
}

TEST_F(SlotTest, FilesThatAreNotSlotsAreRefused) {
  EXPECT_THAT(Save(File("none")).errors, HasSubstr("cannot read " + File("none")));
  std::ofstream(File("text")) << "no slot, however long this text may be";
  EXPECT_THAT(Save(File("text")).errors, HasSubstr("no file that llama.cpp saved a sequence in"));
  ASSERT_EQ(Llama({"prompt=64", "steps=0", "save=" + File("slot")}).status, 0);
  const absl::StatusOr<std::string> whole = ReadSmallFile(File("slot"), size_t{1} << 30);
  ASSERT_TRUE(whole.ok());
  std::ofstream(File("cut")) << whole->substr(0, whole->size() - 1);
  EXPECT_THAT(Save(File("cut")).errors, HasSubstr("not one tensor of keys"));
  std::ofstream(File("cut")) << whole->substr(0, 20);
  EXPECT_THAT(Save(File("cut")).errors, HasSubstr("ends within its tokens"));
  ASSERT_EQ(Llama({"prompt=64", "steps=0", "packed=2", "save=" + File("newer")}).status, 0);
  EXPECT_THAT(Save(File("newer")).errors, HasSubstr("tokens of another version of llama-server"));
  server_.reset();
  EXPECT_THAT(Save(File("slot")).errors, HasSubstr("no session with kvasird"));
  StartServer(MakeConfig());  // for the end of the test
}

}  // namespace
}  // namespace kvasir::testing
