// Profiles of models: what is read, and what is refused with its field and bound.
#include "daemon/core/model_profile.h"

#include <string>

#include <gmock/gmock.h>

#include "base/error.h"
#include "daemon/core/record_format.h"
#include "policies/encoding_spec.h"
#include "tests/core/fake_engine.h"

#include <nlohmann/json.hpp>

namespace kvasir::core {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// Of the tests' small model: 2 layers, 1 kv head of 8 channels.
json Good() {
  const json head = json::array({1, 2, 0, 0.5, 1, 1, 1, 1});
  return {{"format", "kvasir-profile-1"},
          {"weights_digest", "00ff"},
          {"k_bits", {0.5, -0.5}},
          {"v_bits", {-1, 1}},
          {"query_weights", json::array({json::array({head}), json::array({head})})}};
}

TEST(ModelProfileTest, IsReadAndFitsItsModel) {
  const auto profile = ParseModelProfile(Good().dump());
  ASSERT_TRUE(profile.ok()) << MessageOf(profile.status());
  EXPECT_EQ(profile->weights_digest, "00ff");
  EXPECT_EQ(profile->digest.size(), 8U);
  EXPECT_EQ(profile->weights[1][0][3], 0.5F);
  EXPECT_EQ(profile->k_bits[0], 0.5);
  EXPECT_TRUE(CheckProfileFits(*profile, testing::SmallModel(2)).ok());
  EXPECT_THAT(MessageOf(CheckProfileFits(*profile, testing::SmallModel(3))),
              HasSubstr("layers=2 expected=3"));
  json other = Good();
  other["k_bits"][0] = 0.25;
  EXPECT_NE(ParseModelProfile(other.dump())->digest, profile->digest);
}

TEST(ModelProfileTest, RatesMoveThePlanesOfLayers) {
  ModelDescription description = testing::SmallModel(2);
  const auto model = Model::Create(std::move(description));
  ASSERT_TRUE(model.ok());
  auto profile = std::make_shared<const ModelProfile>(*ParseModelProfile(Good().dump()));
  EncodingSpec spec{.k = kernels::Codec::kTokenMixed,
                    .v = kernels::Codec::kTokenMixed,
                    .rows = 32,
                    .k_bits = 2 * kBitFraction,
                    .v_bits = 1 * kBitFraction};
  const std::vector<uint32_t> layers = {0, 1};
  const auto with = MakeLaneRecords(spec, *model, layers, profile);
  ASSERT_TRUE(with.ok()) << MessageOf(with.status());
  EXPECT_EQ(with->layers[0].k.code_planes, 20U);  // 8 channels of 2.5 bits
  EXPECT_EQ(with->layers[1].k.code_planes, 12U);
  EXPECT_EQ(with->layers[0].v.code_planes, 4U);  // 0 bits would be none: half a bit
  EXPECT_EQ(with->layers[1].v.code_planes, 16U);
  EXPECT_EQ(with->Weights(0, 0)[1], 2.0F);
  spec.profile = false;
  const auto without = MakeLaneRecords(spec, *model, layers, profile);
  EXPECT_EQ(without->layers[0].k.code_planes, 16U);
  EXPECT_TRUE(without->Weights(0, 0).empty());
  EXPECT_NE(with->geometry.v_off, without->geometry.v_off);
}

TEST(ModelProfileTest, WhatIsWrongIsNamed) {
  const auto error = [](const json& object) {
    return MessageOf(ParseModelProfile(object.dump()).status());
  };
  EXPECT_THAT(MessageOf(ParseModelProfile("{\"format\":").status()), HasSubstr("not a JSON"));
  EXPECT_THAT(MessageOf(ParseModelProfile("[]").status()), HasSubstr("not a JSON object"));
  for (const char* field : {"format", "weights_digest", "k_bits", "v_bits", "query_weights"}) {
    json bad = Good();
    bad.erase(field);
    EXPECT_THAT(error(bad), HasSubstr(std::string("field=") + field));
    bad[field] = 3;
    EXPECT_THAT(error(bad), HasSubstr(std::string("field=") + field));
  }
  json bad = Good();
  bad["format"] = "other";
  EXPECT_THAT(error(bad), HasSubstr("known=kvasir-profile-1"));
  bad = Good();
  bad["k_bits"] = {1};
  EXPECT_THAT(error(bad), HasSubstr("field=k_bits entries=1 expected=2"));
  bad = Good();
  bad["v_bits"][1] = 7;
  EXPECT_THAT(error(bad), HasSubstr("field=v_bits min=-6 max=6"));
  bad = Good();
  bad["query_weights"][0][0][2] = -1;
  EXPECT_THAT(error(bad), HasSubstr("field=query_weights min=0"));
  bad["query_weights"][0][0][2] = "1";
  EXPECT_THAT(error(bad), HasSubstr("field=query_weights"));
  bad["query_weights"][0][0] = json::array();
  EXPECT_THAT(error(bad), HasSubstr("list is out of bounds: field=query_weights"));
  bad["query_weights"] = json::array();
  EXPECT_THAT(error(bad), HasSubstr("list is out of bounds"));
}

}  // namespace
}  // namespace kvasir::core
