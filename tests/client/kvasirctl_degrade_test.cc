// What kvasirctl says of prefixes that were made smaller.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/ctl/render.h"

namespace kvasir::ctl {
namespace {

using ::testing::HasSubstr;

TEST(KvasirctlDegradeTest, APrefixThatWasMadeSmallerSaysOfWhat) {
  v1::ListPrefixesResponse prefixes;
  auto* info = prefixes.add_prefixes();
  info->set_tenant("a");
  info->set_model("SmolLM2");
  info->set_place("memory");
  info->set_rows(992);
  info->set_held_bytes(2048);
  info->set_retention("sepllm");
  info->set_condensed_from("full\x1b[2J");
  EXPECT_EQ(RenderPrefixes(prefixes),
            "TENANT  MODEL    PLACE   ROWS     HELD  HITS  LEASES  AGE  "
            "RETENTION                          LABEL\n"
            "a       SmolLM2  memory   992  2.0 KiB     0       0  0 s  "
            "sepllm condensed from full\\x1b[2J\n");
  v1::PrefixEvent event;
  event.set_number(7);
  event.set_kind(v1::PrefixEvent::KIND_DEGRADED);
  event.set_tenant("a");
  event.set_entry(3);
  event.set_retention("full+int8");
  event.set_condensed_from("full");
  EXPECT_EQ(
      RenderEvent(event),
      "7 degraded tenant=a prefix=3 rows=0 chunks=0 retention=full+int8 condensed from full\n");
  v1::ListPrefixLookupsResponse lookups;
  auto* lookup = lookups.add_lookups();
  lookup->set_cause("degraded");
  lookup->set_nearest("sepllm condensed from full");
  EXPECT_THAT(RenderLookups(lookups),
              HasSubstr("made smaller, found with least_quality: sepllm condensed from full"));
}

}  // namespace
}  // namespace kvasir::ctl
