#include "engine/tokenizer.h"

#include <fstream>

#include <gmock/gmock.h>

#include "base/error.h"
#include "tests/engine/engine_support.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

class TokenizerTest : public ::testing::Test {
 protected:
  const Tokenizer tokenizer_ = ValueOrDie(Tokenizer::Load(kTinyModel));
};

TEST_F(TokenizerTest, GivesTheIdsOfTheFixture) {
  std::ifstream in(kTinyFixture);
  const nlohmann::json fixture = nlohmann::json::parse(in);
  for (const auto& prompt : fixture["prompts"]) {
    const auto ids = ValueOrDie(tokenizer_.Encode(prompt["text"].get<std::string>(), true, false));
    EXPECT_EQ(ids, prompt["ids"].get<std::vector<uint32_t>>());
  }
}

TEST_F(TokenizerTest, AnyTextComesBack) {
  const std::string texts[] = {"",
                               "a",
                               "Thou shalt not.\n\n  Tabs\tand blanks ",
                               "K\xC3\xA4se \xE2\x82\xAC \xF0\x9F\x98\x80",
                               std::string(5000, 'x'),
                               std::string("\0\x01\x7F", 3)};
  for (const std::string& text : texts) {
    EXPECT_EQ(ValueOrDie(tokenizer_.Decode(ValueOrDie(tokenizer_.Encode(text, false, false)))),
              text);
  }
}

TEST_F(TokenizerTest, SpecialTextsAreControlTokensOnlyOnRequest) {
  const std::string text = "<|endoftext|>";
  EXPECT_THAT(ValueOrDie(tokenizer_.Encode(text, false, true)), ::testing::ElementsAre(0U));
  EXPECT_GT(ValueOrDie(tokenizer_.Encode(text, false, false)).size(), 1U);
}

TEST_F(TokenizerTest, BosComesFromTheModel) {
  EXPECT_TRUE(tokenizer_.adds_bos());
  EXPECT_EQ(ValueOrDie(tokenizer_.Encode("a", true, false)).front(), 0U);
  EXPECT_NE(ValueOrDie(tokenizer_.Encode("a", false, false)).front(), 0U);
}

TEST_F(TokenizerTest, IdsBeyondTheVocabularyAreErrors) {
  EXPECT_EQ(tokenizer_.vocabulary(), 1536U);
  EXPECT_TRUE(tokenizer_.Piece(1535).ok());
  const absl::Status status = tokenizer_.Piece(1536).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), ::testing::HasSubstr("token_id=1536 vocabulary=1536"));
  EXPECT_FALSE(tokenizer_.Decode(std::vector<uint32_t>{1, 4000000000U}).ok());
}

TEST_F(TokenizerTest, EndTokens) {
  EXPECT_TRUE(tokenizer_.IsEnd(0));
  EXPECT_FALSE(tokenizer_.IsEnd(80));
}

TEST_F(TokenizerTest, NoChatTemplateIsAnError) {
  EXPECT_EQ(tokenizer_.ApplyTemplate({{"user", "Hello"}}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(TokenizerLoad, MissingFileIsAnErrorWithAReason) {
  const absl::Status status = Tokenizer::Load("/nonexistent.gguf").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), ::testing::HasSubstr("reason="));
}

}  // namespace
}  // namespace kvasir::engine::testing
