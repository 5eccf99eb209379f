// Who is which tenant, as the configuration says it.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "daemon/config.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::StatusOr<Config> Parse(const std::string& text) {
  return ParseConfig(text, "t.toml", nullptr);
}

TEST(ConfigTenantsTest, UidsGidsAndCgroups) {
  const auto config = Parse(
      "[[tenant]]\n"
      "name = \"a\"\n"
      "uids = [1000]\n"
      "gids = [7, 1000]\n"  // a gid is no uid
      "cgroups = [\"/system.slice/llm-a.service\", \"/kubepods.slice/*\"]\n"
      "[[tenant]]\n"
      "name = \"b\"\n"
      "uids = [7]\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->tenants[0].uids, ElementsAre(1000));
  EXPECT_THAT(config->tenants[0].gids, ElementsAre(7, 1000));
  EXPECT_THAT(config->tenants[0].cgroups,
              ElementsAre("/system.slice/llm-a.service", "/kubepods.slice/*"));
  EXPECT_THAT(config->tenants[1].gids, IsEmpty());
  const auto again = Parse(EffectiveConfigToml(*config));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, *config);
  EXPECT_THAT(ConfigWarnings(*config), IsEmpty());
}

TEST(ConfigTenantsTest, AnyOfThemLetsSomebodyConnect) {
  for (const char* rule : {"uids = [1]", "gids = [1]", "cgroups = [\"/x\"]"}) {
    const auto config = Parse("[[tenant]]\nname = \"a\"\n" + std::string(rule));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_THAT(ConfigWarnings(*config), IsEmpty()) << rule;
  }
  const auto config = Parse("[[tenant]]\nname = \"a\"\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(ConfigWarnings(*config),
              ElementsAre(HasSubstr("nobody can connect"),
                          HasSubstr("no uids, gids or cgroups and is not the default: tenant=a")));
}

struct BadCase {
  std::string name, text, error;
};
class BadTenantTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadTenantTest, IsRefused) {
  const auto config = Parse(GetParam().text);
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(config.status()), HasSubstr(GetParam().error));
}

std::string CgroupsOfA(const std::string& list) {
  return "[[tenant]]\nname = \"a\"\ncgroups = " + list + "\n";
}

std::string ManyCgroups(int count) {
  std::string list = "[";
  for (int i = 0; i < count; ++i) list += "\"/x" + std::to_string(i) + "\",";
  return list + "]";
}

INSTANTIATE_TEST_SUITE_P(
    All, BadTenantTest,
    ::testing::Values(
        BadCase{"GidOfTwoTenants",
                "[[tenant]]\nname = \"a\"\ngids = [1]\n"
                "[[tenant]]\nname = \"b\"\nuids = [1]\ngids = [1]",
                "t.toml:7: gid has a tenant already: key=tenant[1].gids given=1 tenant=\"a\""},
        BadCase{"GidTwice", "[[tenant]]\nname = \"a\"\ngids = [1, 1]", "gid twice in one list"},
        BadCase{"GidTooLarge", "[[tenant]]\nname = \"a\"\ngids = [4294967295]", "max=4294967294"},
        BadCase{"CgroupOfTwoTenants",
                CgroupsOfA("[\"/x/*\"]") + "[[tenant]]\nname = \"b\"\ncgroups = [\"/x\", \"/x/*\"]",
                "t.toml:6: cgroup has a tenant already: key=tenant[1].cgroups given=\"/x/*\" "
                "tenant=\"a\" bound=one tenant for each cgroup"},
        BadCase{"CgroupTwice", CgroupsOfA("[\"/x\", \"/x\"]"),
                "cgroup has a tenant already: key=tenant[0].cgroups given=\"/x\" tenant=\"a\""},
        BadCase{"CgroupRelative", CgroupsOfA("[\"system.slice\"]"),
                "t.toml:3: bad cgroup pattern: key=tenant[0].cgroups[0] given=\"system.slice\" "
                "reason=does not begin with /"},
        BadCase{
            "CgroupUpwards", CgroupsOfA("[\"/x\", \"/x/../y\"]"),
            "key=tenant[0].cgroups[1] given=\"/x/../y\" reason=has a component that is no name"},
        BadCase{"CgroupStarInAName", CgroupsOfA("[\"/x-*\"]"), "that is no whole component"},
        BadCase{"CgroupRoot", CgroupsOfA("[\"/\"]"), "length=1 min=2 max=512"},
        BadCase{"CgroupTooLong", CgroupsOfA("[\"/" + std::string(512, 'x') + "\"]"),
                "length=513 min=2 max=512"},
        BadCase{"CgroupControlByte", CgroupsOfA("[\"/x\\ny\"]"), "control byte"},
        BadCase{"TooManyCgroups", CgroupsOfA(ManyCgroups(65)),
                "too many cgroups: key=tenant[0].cgroups given=65 max=64"},
        BadCase{"CgroupAsNumber", CgroupsOfA("[5]"),
                "wrong type: key=tenant[0].cgroups[0] given=5 expected=text"},
        BadCase{"CgroupsAsText", CgroupsOfA("\"/x\""), "expected=an array of text"}),
    [](const auto& param_info) { return param_info.param.name; });

}  // namespace
}  // namespace kvasir
