// The configuration file: what is read, what is refused and how, and that every text made from the
// schema agrees with it.
#include "daemon/config.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "daemon/config_schema.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kSamplePath[] = "deploy/kvasird.example.toml";  // tests run in the project's root

absl::Status OnlyFullAndSepllm(const std::string& spec) {
  if (spec == "full" || spec == "full+int8" || spec.starts_with("sepllm")) return absl::OkStatus();
  return InvalidArgument("unknown policy: policy={} known=full,sepllm", spec);
}

absl::Status AtMostTwoRungs(std::span<const std::string> rungs) {
  if (rungs.size() <= 2) return absl::OkStatus();
  return InvalidArgument("rung 2: bound=at most two");
}

absl::StatusOr<Config> Parse(std::string_view text) {
  return ParseConfig(text, "t.toml", OnlyFullAndSepllm, AtMostTwoRungs);
}

std::string ErrorOf(std::string_view text) {
  const auto config = Parse(text);
  EXPECT_FALSE(config.ok()) << text;
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return MessageOf(config.status());
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ConfigTest, AnEmptyFileIsEveryDefault) {
  const auto config = Parse("");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, Config());
}

TEST(ConfigTest, ReadsEveryKindOfValue) {
  const auto config = Parse(R"(
[server]
control_socket = "/tmp/c.sock"
socket_mode = "0660"
log_format = "json"
metrics_listen = "[::1]:0"
worker_threads = 3
default_tenant = "b"
[memory]
pool_bytes = "512MiB"
extent_bytes = 8388608
lock = "require"
numa_node = 1
prefault = false
[retention]
default = "sepllm"
[admin]
uids = [0, 7]
[[tenant]]
name = "a"
uids = [1000, 1001]
limit_bytes = "64 MiB"
retention = "full"
degrade = ["full+int8", "sepllm:local_size=64"]
[[tenant]]
name = "b"
)");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server.control_socket, "/tmp/c.sock");
  EXPECT_EQ(config->server.socket_mode, 0660u);
  EXPECT_EQ(config->server.log_format, LogFormat::kJson);
  EXPECT_EQ(config->server.worker_threads, 3u);
  EXPECT_EQ(config->memory.pool_bytes, 512 * kMiB);
  EXPECT_EQ(config->memory.extent_bytes, 8 * kMiB);
  EXPECT_EQ(config->memory.lock, Config::Memory::Lock::kRequire);
  EXPECT_EQ(config->memory.numa_node, 1);
  EXPECT_FALSE(config->memory.prefault);
  EXPECT_THAT(config->admin.uids, ElementsAre(0, 7));
  ASSERT_EQ(config->tenants.size(), 2u);
  EXPECT_THAT(config->tenants[0].uids, ElementsAre(1000, 1001));
  EXPECT_EQ(config->tenants[0].limit_bytes, 64 * kMiB);
  EXPECT_THAT(config->tenants[0].degrade, ElementsAre("full+int8", "sepllm:local_size=64"));
  EXPECT_THAT(config->tenants[1].degrade, IsEmpty());
  EXPECT_EQ(config->tenants[1].limit_bytes, 512 * kMiB);  // the pool
  EXPECT_EQ(config->tenants[1].retention, "sepllm");      // retention.default
}

TEST(ConfigTest, DefaultsShrinkWithASmallPool) {
  const auto config = Parse("[memory]\npool_bytes = \"16MiB\"\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->memory.extent_bytes, 16 * kMiB);
  EXPECT_EQ(config->memory.ready_bytes, 16 * kMiB);
}

TEST(ConfigTest, EffectiveTomlReadsBackAsTheSameConfig) {
  const auto config = Parse(R"(
[server]
control_socket = "/tmp/with \"quotes\" and \\.sock"
[memory]
pool_bytes = 16781312
huge_pages = "try"
[[tenant]]
name = "a"
uids = [5]
degrade = ["full+int8"]
)");
  ASSERT_TRUE(config.ok()) << config.status();
  const auto again = Parse(EffectiveConfigToml(*config));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, *config);
}

TEST(ConfigTest, ErrorsNameFileLineKeyValueAndBound) {
  EXPECT_EQ(
      ErrorOf("[server]\n\nworker_threads = 65\n"),
      "t.toml:3: out of bounds: key=server.worker_threads given=65 min=1 max=64 unit=threads");
  EXPECT_EQ(ErrorOf("[memory]\npool_bytes = \"1MiB\"\n"),
            "t.toml:2: out of bounds: key=memory.pool_bytes given=\"1MiB\" min=16777216 "
            "max=70368744177664 unit=bytes");
}

TEST(ConfigTest, ReportsAllErrorsInTheOrderOfTheFile) {
  const std::string error =
      ErrorOf("[zoo]\n[memory]\nlock = \"maybe\"\nprefault = 1\n[server]\nx=1");
  EXPECT_EQ(error,
            "t.toml:1: unknown table: key=zoo "
            "known=server,memory,limits,retention,prefix,tier,admin,gpu,tenant\n"
            "t.toml:3: unknown word: key=memory.lock given=\"maybe\" known=require,try,off\n"
            "t.toml:4: wrong type: key=memory.prefault given=1 expected=true or false\n"
            "t.toml:6: unknown key: key=server.x known=control_socket,data_socket,socket_mode,"
            "default_tenant,log_level,log_format,metrics_listen,metrics_allow_remote,"
            "worker_threads,rpc_threads,ring_threads");
}

TEST(ConfigTest, StopsListingAfterFiftyErrorsAndCountsTheRest) {
  std::string text = "[admin]\nuids = [";
  for (int i = 0; i < 53; ++i) text += "-1,";
  EXPECT_THAT(ErrorOf(text + "]"), HasSubstr("\nand 3 more"));
}

TEST(ConfigTest, AFileThatIsNotTomlNamesTheLine) {
  EXPECT_THAT(ErrorOf("[server]\nlog_level = \"info\nx"), HasSubstr("t.toml:2: not TOML"));
  EXPECT_THAT(ErrorOf("[server]\nlog_level = \"info\"\nlog_level = \"warn\"\n"),
              HasSubstr("t.toml:3: not TOML"));
}

struct BadCase {
  const char* name;
  const char* text;
  const char* expected;
};

class BadConfigTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadConfigTest, IsRefusedWithItsReason) {
  EXPECT_THAT(ErrorOf(GetParam().text), HasSubstr(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadConfigTest,
    testing::Values(
        BadCase{"RelativeSocket", "[server]\ncontrol_socket = \"c.sock\"", "not an absolute path"},
        BadCase{"FolderAsSocket", "[server]\ncontrol_socket = \"/run/\"", "not an absolute path"},
        BadCase{"EqualSockets", "[server]\ncontrol_socket = \"/a/b\"\ndata_socket = \"/a/./b\"",
                "t.toml:3: same path for both sockets"},
        BadCase{"NulInPath", "[server]\ndata_socket = \"/a\\u0000b\"", "control byte"},
        BadCase{"ModeTooWide", "[server]\nsocket_mode = \"1777\"", "min=0600 max=0777"},
        BadCase{"ModeNotOctal", "[server]\nsocket_mode = \"0689\"", "not a file mode"},
        BadCase{"ModeAsNumber", "[server]\nsocket_mode = 660", "not a file mode"},
        BadCase{"RemoteMetrics", "[server]\nmetrics_listen = \"0.0.0.0:1\"", "not a loopback"},
        BadCase{"HostName", "[server]\nmetrics_listen = \"localhost:1\"", "not a numeric address"},
        BadCase{"PortTooLarge", "[server]\nmetrics_listen = \"127.0.0.1:65536\"", "not a numeric"},
        BadCase{"UnknownDefaultTenant", "[server]\ndefault_tenant = \"a\"", "unknown tenant"},
        BadCase{"NegativeBytes", "[memory]\npool_bytes = -1", "given=-1"},
        BadCase{"UnknownUnit", "[memory]\npool_bytes = \"1GB\"", "units=B,KiB,MiB,GiB,TiB"},
        BadCase{"Overflow", "[memory]\npool_bytes = \"99999999999TiB\"", "not a size"},
        BadCase{"FloatBytes", "[memory]\npool_bytes = 1.5e9", "wrong type"},
        BadCase{"NotWholePages", "[memory]\npool_bytes = 16777217", "multiple_of=4096"},
        BadCase{"ExtentAbovePool", "[memory]\npool_bytes = \"16MiB\"\nextent_bytes = \"32MiB\"",
                "t.toml:3: larger than memory.pool_bytes"},
        BadCase{"RecentAboveExtent",
                "[memory]\nextent_bytes = \"2MiB\"\n"
                "recent_extent_bytes = \"4MiB\"",
                "larger than memory.extent_bytes"},
        BadCase{"ReadyAbovePool", "[memory]\nready_bytes = \"2GiB\"", "max_bytes=1073741824"},
        BadCase{"HalfAHugePage", "[memory]\nhuge_pages = \"try\"\nextent_bytes = \"5MiB\"",
                "not whole huge pages"},
        BadCase{"TooManySequences", "[limits]\nsequences_per_session_max = 1025", "max=1024"},
        BadCase{
            "BadRetention", "[retention]\ndefault = \"lru\"",
            "t.toml:2: bad retention: key=retention.default given=\"lru\" reason=unknown policy"},
        BadCase{"UidTooLarge", "[admin]\nuids = [4294967295]", "max=4294967294"},
        BadCase{"UidAsText", "[admin]\nuids = [\"root\"]", "expected=an integer"},
        BadCase{"UidTwice", "[admin]\nuids = [3, 3]", "uid twice in one list"},
        BadCase{"TableAsValue", "memory = 5", "expected=a table"},
        BadCase{"KeyWithoutTable", "pool_bytes = 5", "unknown key: key=pool_bytes"},
        BadCase{"TenantNotAnArray", "[tenant]\nname = \"a\"", "expected=[[tenant]] tables"},
        BadCase{"TenantWithoutName", "[[tenant]]\nuids = [1]", "missing key: key=tenant[0].name"},
        BadCase{"TenantBadName", "[[tenant]]\nname = \"A b\"", "bound=a-z 0-9 _ . -"},
        BadCase{"TenantEmptyName", "[[tenant]]\nname = \"\"", "length=0 min=1 max=64"},
        BadCase{"TenantTwice", "[[tenant]]\nname = \"a\"\n[[tenant]]\nname = \"a\"",
                "t.toml:4: duplicate tenant: key=tenant[1].name"},
        BadCase{"UidOfTwoTenants",
                "[[tenant]]\nname = \"a\"\nuids = [1]\n[[tenant]]\nname = \"b\"\nuids = [2, 1]",
                "t.toml:6: uid has a tenant already: key=tenant[1].uids given=1 tenant=\"a\""},
        BadCase{"LimitAbovePool", "[[tenant]]\nname = \"a\"\nlimit_bytes = \"2GiB\"",
                "larger than memory.pool_bytes: key=tenant[0].limit_bytes"},
        BadCase{
            "LadderAsText", "[[tenant]]\nname = \"a\"\ndegrade = \"full+int8\"",
            "t.toml:3: wrong type: key=tenant[0].degrade given=\"full+int8\" expected=an array"},
        BadCase{"RungAsNumber", "[[tenant]]\nname = \"a\"\ndegrade = [8]",
                "wrong type: key=tenant[0].degrade[0] given=8 expected=text"},
        BadCase{"RungUnknown", "[[tenant]]\nname = \"a\"\ndegrade = [\"full+int8\", \"lru\"]",
                "bad retention: key=tenant[0].degrade[1] given=\"lru\" reason=unknown policy"},
        BadCase{"RungEmpty", "[[tenant]]\nname = \"a\"\ndegrade = [\"\"]",
                "key=tenant[0].degrade[0] given=\"\" length=0 min=1 max=4096"},
        BadCase{
            "LadderThatIsNone",
            "[[tenant]]\nname = \"a\"\ndegrade = [\"full\", \"full\", \"full\"]",
            "bad ladder: key=tenant[0].degrade given=an array reason=rung 2: bound=at most two"},
        BadCase{
            "TooManyRungs",
            "[[tenant]]\nname = \"a\"\ndegrade = "
            "[\"full\",\"full\",\"full\",\"full\",\"full\",\"full\",\"full\",\"full\",\"full\"]",
            "too many rungs: key=tenant[0].degrade given=9 max=8"},
        BadCase{"LimitBelowOneExtent", "[[tenant]]\nname = \"a\"\nlimit_bytes = \"1MiB\"",
                "no room for one extent"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(ConfigTest, ASocketPathMayHave107BytesAndNoMore) {
  const std::string longest = "/" + std::string(106, 'a');
  EXPECT_TRUE(Parse("[server]\ncontrol_socket = \"" + longest + "\"").ok());
  EXPECT_THAT(ErrorOf("[server]\ncontrol_socket = \"" + longest + "a\""),
              HasSubstr("length=108 min=2 max=107"));
}

TEST(ConfigTest, HostileTextIsEscapedAndCutInErrors) {
  const std::string error =
      ErrorOf("[server]\nlog_level = \"\\u001b[2J" + std::string(500, 'x') + "\"");
  EXPECT_THAT(error, HasSubstr("given=\"\\x1b[2Jxxx"));
  EXPECT_LT(error.size(), 250u);
}

TEST(ConfigTest, BothBoundsOfEveryIntegerAreInsideAndTheNextOnesOut) {
  for (const ConfigKey& key : ConfigSchema()) {
    if (IsConfigArray(key.table)) continue;
    if (key.kind != ConfigKind::kInteger && key.kind != ConfigKind::kBytes) continue;
    const std::string head = "[" + std::string(key.table) + "]\n" + std::string(key.name) + " = ";
    const std::string name = "key=" + std::string(key.table) + "." + std::string(key.name);
    for (const int64_t outside : {key.min - 1, key.max + 1}) {
      EXPECT_THAT(ErrorOf(head + std::to_string(outside)), HasSubstr(name));
    }
    for (const int64_t inside : {key.min, key.max}) {
      const auto config = Parse(head + std::to_string(inside));
      // A bound may still not fit the defaults of other keys (an extent of 4 GiB); then the text
      // says so.
      if (!config.ok()) {
        EXPECT_THAT(MessageOf(config.status()), HasSubstr("larger than memory."));
      }
    }
  }
}

// Any text is answered with a config that reads back, or with kInvalidArgument that names the file.
TEST(ConfigTest, DamagedFilesNeverDoMoreThanFail) {
  const std::string sample =
      SampleConfigToml() + "[[tenant]]\nname = \"a\"\nuids = [1, 2]\ndegrade = [\"full+int8\"]\n";
  constexpr std::string_view kPieces[] = {
      "\"",           "[",    "]",    "=", "\n", "-", "0", "9999999999999999999",
      "[[tenant]]\n", "\x01", "\xff", "{", ".",  "#"};
  int accepted = 0;
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&random](size_t n) { return static_cast<size_t>(random()) % n; };
    std::string text = sample;
    for (size_t edits = 1 + below(4); edits > 0; --edits) {
      const size_t at = below(text.size());
      if (below(2) == 0) text.erase(at, below(40));
      text.insert(std::min(at, text.size()), kPieces[below(std::size(kPieces))]);
    }
    const auto config = Parse(text);
    if (config.ok()) {
      ++accepted;
      const auto again = Parse(EffectiveConfigToml(*config));
      ASSERT_TRUE(again.ok() && *again == *config) << "seed=" << seed << again.status();
    } else {
      ASSERT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << "seed=" << seed;
      ASSERT_TRUE(MessageOf(config.status()).starts_with("t.toml:")) << "seed=" << seed;
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_LT(accepted, 1900);
}

TEST(ConfigTest, WarnsWhenNobodyCanConnect) {
  EXPECT_THAT(ConfigWarnings(Config()), ElementsAre(HasSubstr("nobody can connect")));
  const auto config = Parse("[[tenant]]\nname = \"a\"\nuids = [1]\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(ConfigWarnings(*config), IsEmpty());
}

TEST(ConfigFileTest, MissingFolderAndTooLargeFilesAreRefused) {
  EXPECT_EQ(LoadConfig("/nonexistent/kvasird.toml", nullptr).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(LoadConfig("/tmp", nullptr).status()), HasSubstr("not a regular file"));
  const std::string path = testing::TempDir() + "/config_test_large.toml";
  std::ofstream(path) << std::string(kConfigFileBytesMax + 1, '#');
  EXPECT_THAT(MessageOf(LoadConfig(path, nullptr).status()), HasSubstr("max_bytes=1048576"));
}

TEST(ConfigSampleTest, TheSampleFileIsWhatTheSchemaMakes) {
  if (std::getenv("KVASIR_UPDATE_FILES") != nullptr)
    std::ofstream(kSamplePath) << SampleConfigToml();
  EXPECT_EQ(ReadFile(kSamplePath), SampleConfigToml())
      << "write it anew: KVASIR_UPDATE_FILES=1 build/release/bin/config_test";
}

TEST(ConfigSampleTest, LoadsAndIsEveryDefaultButTheRetention) {
  auto config = LoadConfig(kSamplePath, OnlyFullAndSepllm);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->retention.default_spec, "full+int8");
  config->retention.default_spec = Config().retention.default_spec;
  EXPECT_EQ(*config, Config());
}

TEST(ConfigSampleTest, ShowsEveryKeyOfTheSchema) {
  const std::string text = ReadFile(kSamplePath);
  for (const ConfigKey& key : ConfigSchema()) {
    const std::string line =
        (IsConfigArray(key.table) ? "\n# " : "\n") + std::string(key.name) + " = ";
    EXPECT_THAT(text, HasSubstr(line)) << key.table;
  }
}

TEST(ConfigSampleTest, ItsEntriesAreValidOnceTheCommentSignsAreRemoved) {
  std::string text = SampleConfigToml();
  const size_t at = text.find("\n# [[gpu]]\n") + 1;
  ASSERT_NE(at, std::string::npos);
  for (size_t sign = at; sign != std::string::npos; sign = text.find("\n# ", sign)) {
    text.erase(text[sign] == '\n' ? sign + 1 : sign, 2);
  }
  const auto config = Parse(text);
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->tenants.size(), 1u);
  EXPECT_EQ(config->tenants[0].name, "team-a");
  EXPECT_EQ(config->tenants[0].gpus.at(0).limit_bytes, config->gpus.at(0).pool_bytes);
}

TEST(ConfigSchemaTest, EveryRowIsCompleteAndItsDefaultWithinItsBounds) {
  std::set<std::string> names;
  for (const ConfigKey& key : ConfigSchema()) {
    const std::string name = std::string(key.table) + "." + std::string(key.name);
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_FALSE(key.description.empty()) << name;
    EXPECT_LE(key.min, key.max) << name;
    EXPECT_EQ(FindConfigKey(key.table, key.name), &key);
    EXPECT_THAT(ConfigReferenceMarkdown(), HasSubstr("| `" + name + "` |"));
  }
}

TEST(ByteSizeTest, ReadsWholeNumbersWithUnitsExactly) {
  EXPECT_EQ(ParseByteSize("512MiB"), 512 * kMiB);
  EXPECT_EQ(ParseByteSize("0B"), 0u);
  EXPECT_EQ(ParseByteSize("9223372036854775807B"), 9223372036854775807u);
  for (const char* bad : {"", "MiB", "512", "1.5GiB", "-1B", "1  KiB", "1kib",
                          "9223372036854775808B", "16777216TiB", "1MiB "}) {
    EXPECT_EQ(ParseByteSize(bad), std::nullopt) << bad;
  }
}

TEST(ByteSizeTest, PrintsTheLargestExactUnit) {
  EXPECT_EQ(FormatByteSize(kGiB), "1GiB");
  EXPECT_EQ(FormatByteSize(kGiB + kKiB), "1048577KiB");
  EXPECT_EQ(FormatByteSize(4097), "4097B");
  EXPECT_EQ(FormatByteSize(0), "0B");
}

}  // namespace
}  // namespace kvasir
