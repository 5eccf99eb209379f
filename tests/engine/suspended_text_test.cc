// The file of a suspended text: what is written is read back, and nothing else is believed.
#include "engine/suspended_text.h"

#include <sys/stat.h>

#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "base/error.h"
#include "tests/engine/engine_support.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kVocabulary = 100;

class SuspendedTextTest : public ::testing::Test {
 protected:
  void TearDown() override { (void)::remove(path_.c_str()); }

  static SuspendedText Text() {
    return {std::string("\x00\x01\xFE\xFF 0123456789ab", 16),
            17,
            "full",
            {99},
            {{"system", "be kind"}, {"user", "hello\n\"you\""}, {"assistant", "h\u00e9"}},
            "<s>hello"};
  }
  absl::Status Read(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return ReadSuspendedText(path_, kVocabulary).status();
  }

  const std::string path_ = ::testing::TempDir() + "kvasir_suspended_text";
};

TEST_F(SuspendedTextTest, IsReadBack) {
  const SuspendedText text = Text();
  for (int i = 0; i < 2; ++i) {  // a file that is there is replaced
    ASSERT_TRUE(WriteSuspendedText(text, path_).ok());
    struct stat info {};
    ASSERT_EQ(::stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U);
  }
  const SuspendedText read = ValueOrDie(ReadSuspendedText(path_, kVocabulary));
  EXPECT_EQ(read.snapshot_id, text.snapshot_id);
  EXPECT_EQ(read.rows, text.rows);
  EXPECT_EQ(read.retention, text.retention);
  EXPECT_EQ(read.pending, text.pending);
  EXPECT_EQ(read.done, text.done);
  ASSERT_EQ(read.messages.size(), text.messages.size());
  for (size_t i = 0; i < read.messages.size(); ++i) {
    EXPECT_EQ(read.messages[i].role, text.messages[i].role);
    EXPECT_EQ(read.messages[i].text, text.messages[i].text);
  }
  EXPECT_FALSE(WriteSuspendedText(text, path_ + "/no/folder").ok());
  EXPECT_FALSE(ReadSuspendedText(path_ + "2", kVocabulary).ok());
  EXPECT_FALSE(ReadSuspendedText(::testing::TempDir(), kVocabulary).ok());
}

TEST_F(SuspendedTextTest, EveryFieldIsChecked) {
  ASSERT_TRUE(WriteSuspendedText(Text(), path_).ok());
  const nlohmann::json good = nlohmann::json::parse(std::ifstream(path_));
  const std::string deep(1 << 20, '[');
  using Spoil = std::function<void(nlohmann::json&)>;
  const std::vector<std::pair<const char*, Spoil>> cases = {
      {"schema", [](auto& j) { j["schema"] = 2; }},
      {"snapshot_id", [](auto& j) { j.erase("snapshot_id"); }},
      {"snapshot_id", [](auto& j) { j["snapshot_id"] = 5; }},
      {"snapshot_id", [](auto& j) { j["snapshot_id"] = std::string(33, 'a'); }},
      {"snapshot_id", [](auto& j) { j["snapshot_id"] = std::string(30, 'a'); }},
      {"snapshot_id", [](auto& j) { j["snapshot_id"] = std::string(32, 'g'); }},
      {"rows", [](auto& j) { j["rows"] = 0; }},
      {"rows", [](auto& j) { j["rows"] = -1; }},
      {"rows", [](auto& j) { j["rows"] = 1.5; }},
      {"rows", [](auto& j) { j["rows"] = uint64_t{1} << 33; }},
      {"retention", [](auto& j) { j["retention"] = std::string(4097, 'a'); }},
      {"retention", [](auto& j) { j["retention"] = nullptr; }},
      {"done", [](auto& j) { j["done"] = nlohmann::json::array(); }},
      {"pending", [](auto& j) { j["pending"] = {100}; }},
      {"pending", [](auto& j) { j["pending"] = {-1}; }},
      {"pending",
       [](auto& j) {
         j["pending"] = {1, 2};
       }},
      {"pending", [](auto& j) { j["pending"] = {"1"}; }},
      {"messages", [](auto& j) { j["messages"] = "hello"; }},
      {"messages[1] is no object", [](auto& j) { j["messages"][1] = 5; }},
      {"messages[0].role", [](auto& j) { j["messages"][0]["role"] = "root"; }},
      {"messages[2].text", [](auto& j) { j["messages"][2].erase("text"); }}};
  for (const auto& [field, spoil] : cases) {
    nlohmann::json bad = good;
    spoil(bad);
    const absl::Status status = Read(bad.dump());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.dump();
    EXPECT_THAT(MessageOf(status), HasSubstr(field)) << bad.dump();
  }
  for (const std::string& bytes : {std::string(), std::string("{"), std::string("[]"), deep,
                                   std::string("\xFF\xFE{}"), std::string((16 << 20) + 1, ' ')}) {
    EXPECT_EQ(Read(bytes).code(), absl::StatusCode::kInvalidArgument) << bytes.substr(0, 10);
  }
  EXPECT_TRUE(Read(good.dump()).ok());
}

}  // namespace
}  // namespace kvasir::engine::testing
