// The reference tables of docs/ against the code that they describe.
#include <fstream>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/config_schema.h"
#include "daemon/metric_names.h"
#include "policies/policy_registry.h"

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
}

TEST(DocumentsTest, PoliciesHasEveryPolicyAndParameter) {
  const std::string text = ReadDocument("docs/policies.md");
  for (const PolicyInfo& policy : Policies()) {
    EXPECT_THAT(text, HasSubstr(fmt::format("## `{}`", policy.name)));
    for (const PolicyParameterInfo& parameter : policy.parameters) {
      const std::string value = parameter.default_value.empty()
                                    ? "see text"
                                    : fmt::format("`{}`", parameter.default_value);
      EXPECT_THAT(text, HasSubstr(fmt::format("| `{}` | {} | {} |", parameter.name, value,
                                              parameter.per_layer ? "yes" : "no")))
          << policy.name;
    }
  }
}

}  // namespace
}  // namespace kvasir
