// The reference tables of docs/ against the code that they describe.
#include <algorithm>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/config_schema.h"
#include "daemon/metric_names.h"
#include "policies/policy_registry.h"
#include "proto/shm/layout_hash.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using ::testing::HasSubstr;

// Tests run in the project's root.
std::string ReadDocument(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_FALSE(text.str().empty()) << path;
  return text.str();
}

TEST(DocumentsTest, OperationsHasTheConfigurationReference) {
  const std::string table = ConfigReferenceMarkdown();
  EXPECT_GT(table.size(), 1000U);
  // When this fails: the document's table is to be replaced by this one.
  EXPECT_THAT(ReadDocument("docs/operations.md"), HasSubstr(table));
}

TEST(DocumentsTest, OperationsHasEveryMetric) {
  const std::string text = ReadDocument("docs/operations.md");
  const auto row = [](const auto& metric) {
    return fmt::format("| `{}` | {} | {} |", metric.name,
                       metric.kind == MetricKind::kCounter ? "counter" : "gauge", metric.help);
  };
  for (const auto& metric : kDaemonMetrics) EXPECT_THAT(text, HasSubstr(row(metric)));
  for (const auto& metric : kTenantMetrics) EXPECT_THAT(text, HasSubstr(row(metric)));
  for (const auto& metric : kDevicePoolMetrics) EXPECT_THAT(text, HasSubstr(row(metric)));
  for (const auto& metric : kTenantDeviceMetrics) EXPECT_THAT(text, HasSubstr(row(metric)));
  for (const auto& metric : kStoredMetrics) EXPECT_THAT(text, HasSubstr(row(metric)));
  EXPECT_THAT(text, HasSubstr(fmt::format("| `{}` | gauge | {} |", kHitRatioName, kHitRatioHelp)));
}

void ExpectParameters(const std::string& text, const PolicyInfo& info) {
  for (const PolicyParameterInfo& parameter : info.parameters) {
    const std::string value =
        parameter.default_value.empty() ? "see text" : fmt::format("`{}`", parameter.default_value);
    EXPECT_THAT(text, HasSubstr(fmt::format("| `{}` | {} | {} |", parameter.name, value,
                                            parameter.per_layer ? "yes" : "no")))
        << info.name;
  }
}

// The text from a heading to the next one of its level or above.
std::string Section(const std::string& text, const std::string& heading) {
  const size_t begin = text.find("\n" + heading + "\n");
  EXPECT_NE(begin, std::string::npos) << heading;
  if (begin == std::string::npos) return "";
  size_t end = text.find("\n## ", begin + 1);
  if (heading.starts_with("###")) end = std::min(end, text.find("\n### ", begin + 1));
  return text.substr(begin, end - begin);
}

TEST(DocumentsTest, PoliciesHasEveryPolicyAndParameter) {
  const std::string text = ReadDocument("docs/policies.md");
  for (const PolicyInfo& policy : Policies()) {
    ExpectParameters(Section(text, fmt::format("## `{}`", policy.name)), policy);
    EXPECT_THAT(text, HasSubstr(fmt::format("| [`{0}`](#{0}) |", policy.name)));
  }
  for (const PolicyInfo& rule : StayRules()) {
    ExpectParameters(Section(text, fmt::format("### `{}`", rule.name)), rule);
  }
}

// The lines of the protocol's blocks that begin with `name`, with those that continue them.
std::string StructBlock(const std::string& text, const std::string& name) {
  std::stringstream lines(text);
  std::string line, block;
  while (std::getline(lines, line)) {
    if (line.starts_with(name + " ")) {
      block = line + "\n";
    } else if (!block.empty()) {
      if (!line.starts_with("  ")) break;
      block += line + "\n";
    }
  }
  return block;
}

TEST(DocumentsTest, ProtocolHasEveryFieldAtItsOffset) {
  const std::string text = ReadDocument("docs/shm_protocol.md");
  std::stringstream layout(shm::LayoutText());  // "Struct.field offset size", after one line
  std::string line;
  std::getline(layout, line);
  EXPECT_THAT(text, HasSubstr("ABI" + line.substr(3)));
  int fields = 0;
  while (std::getline(layout, line)) {
    if (line.starts_with("command ring words ")) continue;  // where they stand in the pages
    std::smatch match;
    ASSERT_TRUE(std::regex_match(line, match, std::regex(R"((\w+)\.(\w+) (\d+) (\d+))"))) << line;
    const std::regex entry("\\b" + match[3].str() +
                           " (A32|A64|u8|u16|u32|u64|i32|i64|char|VersionDesc|RingGeometry) " +
                           match[2].str() + "\\b");
    EXPECT_TRUE(std::regex_search(StructBlock(text, match[1].str()), entry)) << line;
    ++fields;
  }
  EXPECT_GT(fields, 50);
}

}  // namespace
}  // namespace kvasir
