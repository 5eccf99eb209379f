// [[gpu]] and [[tenant.gpu]]: what is filled in, what is refused and how.
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "daemon/config.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Config> Parse(const std::string& text) {
  return ParseConfig(text, "t.toml", nullptr);
}

constexpr char kTwoGpus[] =
    "[[gpu]]\nname = \"a\"\ndevice = \"cuda:0\"\npool_bytes = \"64MiB\"\n"
    "[[gpu]]\nname = \"b\"\ndevice = \"host\"\npool_bytes = \"32MiB\"\n";

TEST(ConfigGpuTest, EveryTenantHasABudgetOfEveryDeviceInTheirOrder) {
  const auto config = Parse(std::string(kTwoGpus) +
                            "[[tenant]]\nname = \"t\"\nuids = [1]\n"
                            "[[tenant.gpu]]\nname = \"b\"\nreserved_bytes = \"8MiB\"\nweight = 3\n"
                            "[[tenant]]\nname = \"u\"\nuids = [2]\n");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->gpus.size(), 2U);
  using Gpus = std::vector<Config::TenantGpu>;
  EXPECT_EQ(config->tenants[0].gpus, (Gpus{{"a", 0, 64 * kMiB, 1}, {"b", 8 * kMiB, 32 * kMiB, 3}}));
  EXPECT_EQ(config->tenants[1].gpus, (Gpus{{"a", 0, 64 * kMiB, 1}, {"b", 0, 32 * kMiB, 1}}));
  const auto again = Parse(EffectiveConfigToml(*config));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, *config);
  EXPECT_THAT(ConfigWarnings(*config), ::testing::ElementsAre(HasSubstr("is host")));
}

TEST(ConfigGpuTest, DevicesThatDoNotFitAreNamedWithTheirBound) {
  const std::string tenant = "[[tenant]]\nname = \"t\"\nuids = [1]\n[[tenant.gpu]]\n";
  const std::pair<std::string, std::string> bad[] = {
      {"[[gpu]]\nname = \"a\"\n", "missing key: key=gpu[0].device"},
      {"[[gpu]]\ndevice = \"host\"\n", "missing key: key=gpu[0].name"},
      {"[[gpu]]\nname = \"" + std::string(41, 'a') + "\"\ndevice = \"host\"\n", "key=gpu[0].name"},
      {"[[gpu]]\nname = \"a\"\ndevice = \"rocm:0\"\n", "not a device: key=gpu[0].device"},
      {"[[gpu]]\nname = \"a\"\ndevice = \"host\"\npool_bytes = 4096\n", "min=2097152"},
      {"[[gpu]]\nname = \"a\"\ndevice = \"host\"\npool_bytes = \"16MiB\"\n",
       "larger than gpu[0].pool_bytes: key=gpu[0].extent_bytes"},
      {std::string(kTwoGpus) + "[[gpu]]\nname = \"a\"\ndevice = \"cuda:0\"\n", "duplicate gpu"},
      {std::string(kTwoGpus) + "[[gpu]]\nname = \"c\"\ndevice = \"cuda:0\"\n",
       "a device of two pools: key=gpu[2].device"},
      {kTwoGpus + tenant + "name = \"z\"\n", "unknown gpu: key=tenant[0].gpu[0].name"},
      {kTwoGpus + tenant + "name = \"a\"\n[[tenant.gpu]]\nname = \"a\"\n", "gpu twice"},
      {kTwoGpus + tenant + "name = \"a\"\nreserved_bytes = \"2MiB\"\nlimit_bytes = \"1MiB\"\n",
       "t.toml:14: larger than tenant[0].gpu.a.limit_bytes: key=tenant[0].gpu.a.reserved_bytes"},
      {kTwoGpus + tenant + "name = \"b\"\nlimit_bytes = \"1GiB\"\n",
       "larger than gpu[1].pool_bytes: key=tenant[0].gpu.b.limit_bytes"},
      {kTwoGpus + tenant + "name = \"a\"\nweight = 0\n", "key=tenant[0].gpu[0].weight"},
      {kTwoGpus + tenant + "name = \"a\"\nlimits = 0\n",
       "unknown key: key=tenant[0].gpu[0].limits"},
      {kTwoGpus + tenant + "name = \"b\"\nreserved_bytes = \"20MiB\"\n" +
           "[[tenant]]\nname = \"u\"\nuids = [2]\n[[tenant.gpu]]\nname = \"b\"\n"
           "reserved_bytes = \"20MiB\"\n",
       "tenants reserve more than there is: key=tenant[1].gpu.b.reserved_bytes"}};
  for (const auto& [text, what] : bad) {
    const auto config = Parse(text);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(MessageOf(config.status()), HasSubstr(what)) << text;
  }
}

}  // namespace
}  // namespace kvasir
