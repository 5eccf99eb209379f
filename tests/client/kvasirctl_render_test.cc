// kvasirctl's pictures: golden tables and JSON, and that hostile text cannot drive a terminal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "client/ctl/render.h"
#include "client/ctl/table.h"
#include "client/ctl/terminal_text.h"

namespace kvasir::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::GetStatsResponse ExampleStats() {
  v1::GetStatsResponse stats;
  stats.set_boot_epoch(7);
  stats.set_version("0.1.0");
  stats.set_uptime_ms(3'723'000);
  stats.set_pool_bytes(1073741824);
  stats.set_pool_free_bytes(1006632960);
  stats.set_pool_ready_bytes(268435456);
  stats.set_held_bytes(9437184);
  stats.set_charged_bytes(67108864);
  auto* tenant = stats.add_tenants();
  tenant->set_tenant("team-a");
  tenant->mutable_host()->set_held_bytes(9437184);
  tenant->mutable_host()->set_charged_bytes(67108864);
  tenant->mutable_host()->set_limit_bytes(536870912);
  tenant->mutable_host()->set_own_bytes(268435456);
  tenant->set_sessions(1);
  tenant->set_sequences(2);
  tenant->set_rows_seen(4096);
  tenant->set_rows_kept(512);
  tenant->set_compactions(30);
  stats.add_tenants()->set_tenant("b");
  return stats;
}

TEST(KvasirctlTableTest, AlignsNumbersToTheRightAndTrimsLineEnds) {
  Table table({{"NAME"}, {"N", Table::Align::kRight}, {"TEXT"}});
  table.AddRow({"\u00e4\u00f6", "1", "x"});
  table.AddRow({"longer", "1000", ""});
  EXPECT_EQ(table.Render(),
            "NAME       N  TEXT\n"
            "\u00e4\u00f6         1  x\n"
            "longer  1000\n");
}

TEST(KvasirctlRenderTest, Stats) {
  EXPECT_EQ(RenderStats(ExampleStats()),
            R"(kvasird      0.1.0
up           1 h 2 min
boot epoch   7
pool         1.00 GiB, not locked
  free       960.0 MiB, of these ready 256.0 MiB
  charged    64.0 MiB
  held       9.0 MiB
late faults  0

TENANT  SESSIONS  SEQUENCES  SEEN  KEPT     HELD   CHARGED  )"
            R"(      OWN      LIMIT   USED  COMPACTIONS  REJECTED  VIOLATIONS
team-a         1          2  4096   512  9.0 MiB  64.0 MiB  )"
            R"(256.0 MiB  512.0 MiB  12.5%           30         0           0
b              0          0     0     0      0 B       0 B  )"
            R"(      0 B        0 B      -            0         0           0
)");
}

TEST(KvasirctlRenderTest, APoolThatIsNotAsConfiguredSaysWhy) {
  v1::GetStatsResponse stats = ExampleStats();
  stats.set_pool_wanted_bytes(2 * kGiB);
  stats.set_pool_configured_bytes(4 * kGiB);
  EXPECT_THAT(RenderStats(stats), HasSubstr("\npool          1.00 GiB, not locked\n"
                                            "  wanted      2.00 GiB: smaller for memory pressure\n"
                                            "  configured  4.00 GiB\n"));
  stats.set_pool_wanted_bytes(kGiB);
  EXPECT_THAT(RenderStats(stats), Not(HasSubstr("wanted")));
  stats.set_pool_configured_bytes(kGiB);
  EXPECT_THAT(RenderStats(stats), Not(HasSubstr("configured")));
}

TEST(KvasirctlRenderTest, StatsAsJsonHaveExactBytesAndEveryField) {
  const std::string json = RenderJson(ExampleStats());
  EXPECT_THAT(json, HasSubstr("\"pool_bytes\": \"1073741824\""));
  EXPECT_THAT(json, HasSubstr("\"memory_locked\": false"));
  EXPECT_THAT(json, HasSubstr("\"late_faults\": \"0\""));
}

TEST(KvasirctlRenderTest, TenantsAsJson) {
  v1::GetStatsResponse stats;
  stats.set_boot_epoch(7);
  stats.add_tenants()->set_tenant("a");
  EXPECT_EQ(RenderTenantsJson(stats), R"({
 "boot_epoch": "7",
 "tenants": [
  {
   "tenant": "a",
   "sessions": 0,
   "sequences": 0,
   "rows_seen": "0",
   "rows_kept": "0",
   "compactions": "0",
   "rejected_calls": "0",
   "violations": "0",
   "snapshots": "0",
   "snapshot_bytes": "0",
   "snapshots_dropped": "0",
   "prefixes": "0",
   "prefix_bytes": "0",
   "prefix_lookups": "0",
   "prefix_hits": "0",
   "prefix_rows": "0",
   "prefix_rows_hit": "0",
   "prefix_chunks": "0",
   "prefix_metadata_bytes": "0",
   "prefix_leases": "0",
   "condensings": "0",
   "condensed_rows": "0",
   "condensed_bytes": "0",
   "condensing_failures": "0",
   "models": 0,
   "foretold": "0",
   "typical_response_rows": "0",
   "suspensions_asked": "0",
   "calls": "0",
   "calls_refused": "0",
   "devices": []
  }
 ]
}
)");
}

TEST(KvasirctlRenderTest, Sequences) {
  v1::ListSequencesResponse sequences;
  EXPECT_EQ(RenderSequences(sequences), "no open sequences\n");
  auto* info = sequences.add_sequences();
  info->set_sequence_id(12);
  info->set_tenant("a");
  info->set_pid(4711);
  info->set_model("SmolLM2");
  info->set_rows_seen(1000);
  info->set_rows_kept(125);
  info->set_held_bytes(2048);
  info->set_compactions(3);
  info->set_retention("sepllm");
  info->set_label("chat");
  EXPECT_EQ(
      RenderSequences(sequences),
      "ID  TENANT   PID  MODEL    SEEN  KEPT  SHARE     HELD  COMPACTIONS  RETENTION  LABEL\n"
      "12  a       4711  SmolLM2  1000   125  12.5%  2.0 KiB            3  sepllm     chat\n");
}

TEST(KvasirctlRenderTest, Curves) {
  v1::GetHitRateCurvesResponse curves;
  EXPECT_EQ(RenderCurves(curves), "no tenants\n");
  curves.add_curves()->set_tenant("idle\x1b[2J");
  auto* curve = curves.add_curves();
  curve->set_tenant("a");
  curve->set_chunk_bytes(2 << 20);
  curve->set_chunks_asked(70'000);
  curve->set_stands_for(4);
  const auto add = [&](double times, uint64_t mib, double ratio) {
    auto* point = curve->add_points();
    point->set_times(times);
    point->set_bytes(mib << 20);
    point->set_chunks(mib / 2);
    point->set_hit_ratio(ratio);
  };
  add(0.125, 128, 0.1);
  add(1, 1024, 0.4567);
  add(8, 8192, 0.4);
  EXPECT_EQ(RenderCurves(curves),
            "tenant idle\\x1b[2J: no prompt was asked with\n"
            "\n"
            "tenant a: 70000 chunks of 2.0 MiB asked for, one in 4 followed\n"
            "TIMES     MEMORY  CHUNKS    HIT   GAIN\n"
            "0.125  128.0 MiB      64  10.0%  +10.0\n"
            "    1   1.00 GiB     512  45.7%  +35.7\n"
            "    8   8.00 GiB    4096  40.0%   -5.7\n");
}

TEST(KvasirctlRenderTest, Snapshots) {
  v1::ListSnapshotsResponse snapshots;
  EXPECT_EQ(RenderSnapshots(snapshots), "no snapshots\n");
  auto* info = snapshots.add_snapshots();
  info->set_tenant("a");
  info->set_model("SmolLM2");
  info->set_rows(1000);
  info->set_held_bytes(2048);
  info->set_age_ms(61'000);
  info->set_retention("full");
  info->set_label("chat\x1b[2J");
  EXPECT_EQ(RenderSnapshots(snapshots),
            "TENANT  MODEL    ROWS     HELD        AGE  RETENTION  LABEL\n"
            "a       SmolLM2  1000  2.0 KiB  1 min 1 s  full       chat\\x1b[2J\n");
}

TEST(KvasirctlRenderTest, Prefixes) {
  v1::ListPrefixesResponse prefixes;
  EXPECT_EQ(RenderPrefixes(prefixes), "no prefixes\n");
  auto* info = prefixes.add_prefixes();
  info->set_tenant("a");
  info->set_model("SmolLM2");
  info->set_place("memory");
  info->set_rows(700);
  info->set_held_bytes(2048);
  info->set_hits(12);
  info->set_leases(2);
  info->set_age_ms(61'000);
  info->set_retention("full");
  info->set_label("chat");
  EXPECT_EQ(RenderPrefixes(prefixes),
            "TENANT  MODEL    PLACE   ROWS     HELD  HITS  LEASES        AGE  RETENTION  LABEL\n"
            "a       SmolLM2  memory   700  2.0 KiB    12       2  1 min 1 s  full       chat\n");
}

TEST(KvasirctlRenderTest, Policies) {
  v1::ListPoliciesResponse policies;
  auto* policy = policies.add_policies();
  policy->set_name("streamingllm");
  policy->set_summary("First tokens and a window");
  policy->set_source("arXiv:2309.17453");
  auto* parameter = policy->add_parameters();
  parameter->set_name("start_size");
  parameter->set_type("integer");
  parameter->set_default_value("4");
  parameter->set_bounds("0 to 4096");
  parameter->set_description("first tokens kept");
  policies.add_policies()->set_name("full");
  policies.mutable_policies(1)->set_shareable(true);
  policies.mutable_policies(1)->set_accepts_rules(true);
  auto* rule = policies.add_rules();
  rule->set_name("sinks");
  rule->set_summary("first tokens");
  EXPECT_EQ(RenderPolicies(policies),
            "streamingllm: First tokens and a window\n"
            "  paper: arXiv:2309.17453\n"
            "  may be shared under a prefix hash: no\n"
            "  PARAMETER   TYPE     DEFAULT  BOUNDS     BY LAYER  MEANING\n"
            "  start_size  integer  4        0 to 4096  no        first tokens kept\n"
            "\n"
            "full: \n"
            "  may be shared under a prefix hash: yes\n"
            "  rules may stand before it\n"
            "\n"
            "Rules keep rows whatever the policy after them says: 'RULE|RULE|POLICY'\n"
            "\n"
            "sinks: first tokens\n");
}

struct Token {
  const char* text;
  bool kept;
  uint32_t id = 0;  // 0: not known
};

v1::InspectSequenceResponse Inspection(const std::vector<Token>& tokens) {
  v1::InspectSequenceResponse response;
  response.mutable_info()->set_sequence_id(12);
  response.mutable_info()->set_tenant("a");
  response.mutable_info()->set_model("m");
  response.mutable_info()->set_retention("full");
  response.set_layers(2);
  for (size_t i = 0; i < tokens.size(); ++i) {
    auto* row = response.add_rows();
    row->set_row(i);
    row->set_text(tokens[i].text);
    row->set_kept(tokens[i].kept);
    row->set_token(tokens[i].id);
    row->set_token_known(tokens[i].id != 0);
  }
  return response;
}

// The picture without the lines about the sequence.
std::string TextOf(const std::vector<Token>& tokens, bool color = false) {
  const std::string out = RenderInspection(Inspection(tokens), 0, color);
  return out.substr(out.find("\n\n") + 2);
}

TEST(KvasirctlInspectTest, SaysWhatItShows) {
  auto inspection = Inspection({{"The", true}, {" cat", false}});
  inspection.mutable_info()->set_rows_seen(900);
  inspection.mutable_info()->set_rows_kept(100);
  inspection.mutable_info()->set_held_bytes(1024);
  inspection.set_next_row(2);
  EXPECT_EQ(RenderInspection(inspection, 1, false),
            "sequence 12 of a: model m, retention full\n"
            "900 tokens seen, at most 100 kept in a layer, 1.0 KiB held in 2 layers\n"
            "layer 1, rows 0 to 1: 1 of 2 kept (in [brackets], \u00b7 is a dropped token without "
            "text)\n"
            "\n"
            "  [The] cat\n"
            "\n"
            "more follows: --from=2\n");
}

TEST(KvasirctlInspectTest, ShowsThePromptThatWasSelectedFromAndHowHeadsDiffer) {
  auto inspection = Inspection({{"Key", true}, {" 48213", true}, {".", true}});
  inspection.set_kv_heads(3);
  inspection.mutable_rows(0)->set_kept_heads(3);
  inspection.mutable_rows(1)->set_kept_heads(1);
  inspection.mutable_rows(2)->set_kept_heads(3);
  inspection.set_prompt_rows(5);
  const std::vector<Token> prompt = {
      {"Long", false}, {" ago", false}, {" Key", true}, {" 48213", true}, {".", true}};
  for (size_t i = 0; i < prompt.size(); ++i) {
    auto* row = inspection.add_prompt();
    row->set_row(i);
    row->set_text(prompt[i].text);
    row->set_kept(prompt[i].kept);
  }
  EXPECT_EQ(RenderInspection(inspection, 0, false),
            "sequence 12 of a: model m, retention full\n"
            "0 tokens seen, at most 0 kept in a layer, 0 B held in 2 layers\n"
            "prompt of 5 tokens, 0 to 4: 3 of 5 selected (in [brackets], \u00b7 is a dropped token "
            "without text)\n"
            "\n"
            "  Long ago[ Key 48213.]\n"
            "\n"
            "layer 0, rows 0 to 2: 3 of 3 kept (in [brackets], \u00b7 is a dropped token without "
            "text)\n"
            "of 3 kv heads: 2 tokens kept by all, 1 by some\n"
            "\n"
            "  [Key 48213.]\n");
}

TEST(KvasirctlInspectTest, MarksRunsOfKeptTokens) {
  EXPECT_EQ(TextOf({{"The", true}, {" cat", true}, {" sat", false}, {".", true}}),
            "  [The cat] sat[.]\n");
  EXPECT_EQ(TextOf({{"The", true}, {" cat", false}}, true),
            "  \x1b[1;32mThe\x1b[0m\x1b[2m cat\x1b[0m\n");
}

TEST(KvasirctlInspectTest, ShowsIdsAndDotsWhereThereIsNoText) {
  EXPECT_EQ(TextOf({{"", true, 17}, {"", true, 0}, {"", false, 18}, {"x", false}}),
            "  [<17>\u00b7]\u00b7x\n");
}

TEST(KvasirctlInspectTest, JoinsACharacterThatIsSpreadOverTokens) {
  EXPECT_EQ(TextOf({{"\xe2\x82", true}, {"\xac", true}}), "  [\u20ac]\n");
  EXPECT_EQ(TextOf({{"\xe2\x82", true}, {"\xac", false}}), "  [\\xe2\\x82]\\xac\n");
}

TEST(KvasirctlInspectTest, TextCannotForgeMarksOrDriveTheTerminal) {
  EXPECT_EQ(TextOf({{"[no] <17>", false}, {"a\nb", true}}), "  \\[no\\] \\<17>[a\\n\n  b]\n");
  for (const bool color : {false, true}) {
    EXPECT_THAT(TextOf({{"\x1b[2J\x1b]0;owned\x07", true}}, color), Not(HasSubstr("\x1b[2J")));
  }
}

TEST(KvasirctlEscapeTest, KeepsPrintableTextAndEscapesTheRest) {
  EXPECT_EQ(EscapeForTerminal("plain \u00e4 \u4e2d \U0001F600"), "plain \u00e4 \u4e2d \U0001F600");
  EXPECT_EQ(EscapeForTerminal("\x1b[31m\r\n\t\x7f"), "\\x1b[31m\\r\\n\\t\\x7f");
  EXPECT_EQ(EscapeForTerminal(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(EscapeForTerminal("\u009b2J \u202e \u2028 \ufeff"),
            "\\u{9b}2J \\u{202e} \\u{2028} \\u{feff}");
  EXPECT_EQ(EscapeForTerminal("back\\slash"), "back\\\\slash");
}

TEST(KvasirctlEscapeTest, BytesThatAreNotUtf8AreShownOneByOne) {
  EXPECT_EQ(EscapeForTerminal("\xff\xc0\x80"), "\\xff\\xc0\\x80");           // overlong zero
  EXPECT_EQ(EscapeForTerminal("\xed\xa0\x80"), "\\xed\\xa0\\x80");           // surrogate
  EXPECT_EQ(EscapeForTerminal("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // above U+10FFFF
  EXPECT_EQ(EscapeForTerminal("\xe2\x82"), "\\xe2\\x82");                    // cut
}

TEST(KvasirctlEscapeTest, NoByteSequenceOfTwoLeavesAControlByte) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const std::string text{static_cast<char>(first), static_cast<char>(second)};
      for (const char c : EscapeForTerminal(text)) {
        const auto byte = static_cast<unsigned char>(c);
        ASSERT_TRUE(byte >= 0x20 && byte != 0x7f) << first << " " << second;
      }
    }
  }
}

TEST(KvasirctlRenderTest, HostileNamesAreEscapedInTables) {
  v1::ListSequencesResponse sequences;
  sequences.add_sequences()->set_label("x\x1b[2J\nforged line");
  EXPECT_THAT(RenderSequences(sequences), HasSubstr("x\\x1b[2J\\nforged line\n"));
}

}  // namespace
}  // namespace kvasir::ctl
