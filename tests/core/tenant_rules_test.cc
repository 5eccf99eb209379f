#include "daemon/core/tenant_rules.h"

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir::core {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kNobody = 99;

TEST(CheckCgroupPattern, TakesPathsAndWholeStars) {
  for (const char* good : {"/a", "/system.slice/llm-a.service", "/kubepods.slice/*", "/*/b",
                           "/a/*/*", "/...", "/a b"}) {
    EXPECT_TRUE(CheckCgroupPattern(good).ok()) << good;
  }
  const std::pair<std::string, std::string> cases[] = {
      {"", "does not begin with /"},
      {"a/b", "does not begin with /"},
      {"*", "does not begin with /"},
      {"/", "empty component: component=1"},
      {"//a", "empty component: component=1"},
      {"/a/", "empty component: component=2"},
      {"/a//b", "empty component: component=2"},
      {"/a/..", "no name: component=2 given=.."},
      {"/./a", "no name: component=1"},
      {"/a/llm-*.service", "no whole component: component=2 given=llm-*.service"},
      {"/**", "no whole component"},
      {"/" + std::string(512, 'a'), "too long: bytes=513 max=512"},
  };
  for (const auto& [bad, text] : cases) {
    EXPECT_THAT(MessageOf(CheckCgroupPattern(bad)), HasSubstr(text)) << bad;
  }
  std::string deep;
  for (size_t i = 0; i < kCgroupPatternPartsMax; ++i) deep += "/a";
  EXPECT_TRUE(CheckCgroupPattern(deep).ok());
  EXPECT_THAT(MessageOf(CheckCgroupPattern(deep + "/a")), HasSubstr("count=33 max=32"));
}

TEST(TenantRules, NoRuleMatchesNobody) {
  TenantRules rules;
  EXPECT_EQ(rules.Find(0, 0, "/"), std::nullopt);
  rules.AddCgroup("/a/b", 0);
  EXPECT_EQ(rules.Find(0, 0, ""), std::nullopt);
  EXPECT_EQ(rules.Find(0, 0, "/"), std::nullopt);
  EXPECT_EQ(rules.Find(0, 0, "/a"), std::nullopt);
  EXPECT_EQ(rules.Find(0, 0, "/a/bc"), std::nullopt);
  EXPECT_EQ(rules.Find(0, 0, "a/b"), std::nullopt);
  EXPECT_EQ(rules.Find(0, 0, "/x/a/b"), std::nullopt);
  EXPECT_EQ(rules.Find(0, 0, "//a/b"), std::nullopt);
}

TEST(TenantRules, APatternHoldsForAllBelow) {
  TenantRules rules;
  rules.AddCgroup("/system.slice/llm-a.service", 4);
  EXPECT_EQ(rules.Find(0, 0, "/system.slice/llm-a.service"), 4U);
  EXPECT_EQ(rules.Find(0, 0, "/system.slice/llm-a.service/worker/1"), 4U);
  EXPECT_EQ(rules.Find(0, 0, "/system.slice/llm-a.service2"), std::nullopt);
  EXPECT_EQ(rules.Find(0, 0, "/system.slice/llm-a.service (deleted)"), std::nullopt);
}

TEST(TenantRules, AStarIsOneComponent) {
  TenantRules rules;
  rules.AddCgroup("/pods/*/main", 1);
  EXPECT_EQ(rules.Find(0, 0, "/pods/x/main"), 1U);
  EXPECT_EQ(rules.Find(0, 0, "/pods/x/main/sub"), 1U);
  EXPECT_EQ(rules.Find(0, 0, "/pods/main"), std::nullopt);
  EXPECT_EQ(rules.Find(0, 0, "/pods//main"), std::nullopt);
  EXPECT_EQ(rules.Find(0, 0, "/pods/x/y/main"), std::nullopt);
}

TEST(TenantRules, CgroupThenUidThenGid) {
  TenantRules rules;
  rules.AddGid(7, 0);
  EXPECT_EQ(rules.Find(1, 7, "/a"), 0U);
  rules.AddUid(1, 1);
  EXPECT_EQ(rules.Find(1, 7, "/a"), 1U);
  EXPECT_EQ(rules.Find(2, 7, "/a"), 0U);
  rules.AddCgroup("/a", 2);
  EXPECT_EQ(rules.Find(1, 7, "/a"), 2U);
  EXPECT_EQ(rules.Find(kNobody, kNobody, "/a"), 2U);
  EXPECT_EQ(rules.Find(1, 7, "/b"), 1U);
  EXPECT_EQ(rules.Find(7, 1, "/b"), std::nullopt);  // a uid is no gid
  rules.set_default(3);
  EXPECT_EQ(rules.Find(7, 1, "/b"), 3U);
  EXPECT_EQ(rules.Find(1, 7, "/b"), 1U);
}

TEST(TenantRules, MostComponentsThenNamesFromTheLeft) {
  // In each the first one has to win, in whatever order they were written.
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"/a/b", "/a"}, "/a/b/c"},
      {{"/*/*", "/a"}, "/a/b"},
      {{"/a/b", "/a/*"}, "/a/b"},
      {{"/a/*", "/*/b"}, "/a/b"},
      {{"/a/*/c", "/*/b/c", "/a/b"}, "/a/b/c"},
      {{"/a/b/*", "/a/*/c"}, "/a/b/c"},
      {{"/*/b", "/a/c", "/*"}, "/a/b"},
  };
  for (const auto& [patterns, path] : cases) {
    for (const bool backwards : {false, true}) {
      TenantRules rules;
      for (size_t i = 0; i < patterns.size(); ++i) {
        const size_t which = backwards ? patterns.size() - 1 - i : i;
        rules.AddCgroup(patterns[which], which);
      }
      EXPECT_EQ(rules.Find(0, 0, path), 0U) << patterns[0] << " backwards=" << backwards;
    }
  }
}

std::vector<std::string> PartsOf(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < path.size();) {
    const size_t end = std::min(path.find('/', at + 1), path.size());
    parts.push_back(path.substr(at + 1, end - at - 1));
    at = end;
  }
  return parts;
}

// All patterns one after the other, by the words of the header.
std::optional<size_t> SlowFind(const std::vector<std::string>& patterns, const std::string& path) {
  const std::vector<std::string> parts = PartsOf(path);
  std::optional<size_t> best;
  std::pair<size_t, std::string> best_key;
  for (size_t i = 0; i < patterns.size(); ++i) {
    const std::vector<std::string> wanted = PartsOf(patterns[i]);
    bool matches = wanted.size() <= parts.size();
    std::string names;  // '1' for a name, '0' for a star
    for (size_t p = 0; matches && p < wanted.size(); ++p) {
      names += wanted[p] == "*" ? '0' : '1';
      matches = wanted[p] == "*" || wanted[p] == parts[p];
    }
    const std::pair<size_t, std::string> key(wanted.size(), names);
    if (matches && (!best || key > best_key)) {
      best = i;
      best_key = key;
    }
  }
  return best;
}

TEST(TenantRules, EqualsTheSlowSearch) {
  std::mt19937 random(7);
  const auto path_of = [&random](bool stars) {
    std::string path;
    for (size_t parts = 1 + random() % 4; parts > 0; --parts) {
      const auto kind = static_cast<uint32_t>(random() % (stars ? 4 : 3));
      path += '/';
      path += kind == 3 ? '*' : static_cast<char>('a' + kind);
    }
    return path;
  };
  size_t matched = 0;
  for (int round = 0; round < 500; ++round) {
    TenantRules rules;
    std::vector<std::string> patterns;
    for (size_t count = random() % 12; count > 0; --count) {
      const std::string pattern = path_of(true);
      if (std::find(patterns.begin(), patterns.end(), pattern) != patterns.end()) continue;
      rules.AddCgroup(pattern, patterns.size());
      patterns.push_back(pattern);
    }
    for (int i = 0; i < 40; ++i) {
      const std::string path = path_of(false);
      const std::optional<size_t> found = rules.Find(kNobody, kNobody, path);
      ASSERT_EQ(found, SlowFind(patterns, path)) << path;
      matched += found.has_value() ? 1 : 0;
    }
  }
  EXPECT_GT(matched, 1000U);
}

}  // namespace
}  // namespace kvasir::core
