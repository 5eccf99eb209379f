// Bytes of states: what was written is read, and what was not is refused by name.
#include "base/state_codec.h"

#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
constexpr StateFormat kFormat{"KVTESTED", 3, 1000, "tested state", "owner"};

std::string ErrorOf(StateReader& reader) { return MessageOf(reader.Finish()); }

TEST(StateCodecTest, WhatIsWrittenIsRead) {
  StateWriter inner;
  inner.Number(9);
  StateWriter writer;
  writer.Number(7);
  writer.Number(static_cast<uint64_t>(int64_t{-5}));
  writer.Flag(true);
  writer.Flag(false);
  writer.Id(0xFFFFFFFE);
  writer.Text("name");
  writer.Part(inner);
  writer.Number(2);
  writer.Id(1);
  writer.Id(2);
  StateReader reader(kFormat, writer.bytes());
  EXPECT_EQ(reader.Number("a", 7, 7), 7U);
  EXPECT_EQ(reader.Signed("b", -5, 0), -5);
  EXPECT_TRUE(reader.Flag("c"));
  EXPECT_FALSE(reader.Flag("d"));
  EXPECT_EQ(reader.Id("e"), 0xFFFFFFFEU);
  EXPECT_EQ(reader.Text("f"), "name");
  StateReader part = reader.Part("g");
  part.Expect("h", 9);
  EXPECT_TRUE(part.Finish().ok());
  EXPECT_EQ(reader.Count("i", 4, 2), 2U);
  EXPECT_EQ(reader.Id("j"), 1U);
  EXPECT_EQ(reader.Id("k"), 2U);
  EXPECT_TRUE(reader.Finish().ok());
}

TEST(StateCodecTest, NumbersAreLittleEndian) {
  StateWriter writer;
  writer.Number(0x0102);
  writer.Id(0x0304);
  EXPECT_EQ(writer.bytes(), std::string("\2\1\0\0\0\0\0\0\4\3\0\0", 12));
}

TEST(StateCodecTest, AWrongFieldIsNamedWithItsBounds) {
  StateWriter writer;
  writer.Number(7);
  const auto error = [&writer](auto read) {
    StateReader reader(kFormat, writer.bytes());
    read(reader);
    return ErrorOf(reader);
  };
  EXPECT_THAT(error([](StateReader& r) { r.Number("size", 8, 9); }),
              HasSubstr("tested state is out of bounds: size=7 min=8 max=9"));
  EXPECT_THAT(error([](StateReader& r) { r.Signed("size", -9, 6); }),
              HasSubstr("size=7 min=-9 max=6"));
  EXPECT_THAT(error([](StateReader& r) { r.Flag("is"); }), HasSubstr("is=7 min=0 max=1"));
  EXPECT_THAT(error([](StateReader& r) { r.Expect("size", 6); }),
              HasSubstr("of other settings: size=7 expected=6"));
  EXPECT_THAT(error([](StateReader& r) { r.Id("id"); }), HasSubstr("behind its end: bytes=4"));
  EXPECT_THAT(error([](StateReader& r) {
                r.Number("one", 0, kMax);
                r.Number("two", 0, kMax);
              }),
              HasSubstr("cut: field=two bytes=8 left=0"));
}

TEST(StateCodecTest, ACountIsNoMoreThanWhatFollowsIt) {
  for (const uint64_t count : {uint64_t{3}, uint64_t{1} << 62, kMax}) {
    StateWriter writer;
    writer.Number(count);
    writer.Number(0);
    writer.Number(0);
    StateReader reader(kFormat, writer.bytes());
    EXPECT_EQ(reader.Count("rows", 8, kMax), 0U);
    EXPECT_THAT(ErrorOf(reader), HasSubstr(fmt::format("rows={} max=2", count)));
    StateReader text(kFormat, writer.bytes());
    EXPECT_EQ(text.Text("text"), count == 3 ? std::string(3, '\0') : "");
    EXPECT_FALSE(text.Finish().ok());
  }
}

TEST(StateCodecTest, TheFirstErrorStaysAndNothingIsReadBehindIt) {
  StateWriter writer;
  for (int i = 0; i < 4; ++i) writer.Number(5);
  StateReader reader(kFormat, writer.bytes());
  reader.Number("first", 0, 4);
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.Number("second", 5, 5), 0U);
  EXPECT_EQ(reader.Count("third", 1, 9), 0U);
  EXPECT_FALSE(reader.Holds("fourth", 0, 1));
  reader.Fail(InvalidArgument("another"));
  StateReader part = reader.Part("fifth");
  EXPECT_THAT(ErrorOf(part), HasSubstr("first=5"));
  EXPECT_THAT(ErrorOf(reader), HasSubstr("first=5"));
}

TEST(StateCodecTest, AStrangersNameIsRepeatedWhereItIsOne) {
  const auto error = [](std::string_view name) {
    StateWriter writer;
    writer.Text(name);
    StateReader reader(kFormat, writer.bytes());
    reader.ExpectText("class", "window");
    return ErrorOf(reader);
  };
  EXPECT_EQ(error("window"), "");
  EXPECT_THAT(error("full"), HasSubstr("of another class: class=full expected=window"));
  EXPECT_THAT(error("full\n2026 forged"), HasSubstr("class=(no name) expected=window"));
  EXPECT_THAT(error(std::string(65, 'a')), HasSubstr("class=(no name)"));
}

TEST(StateCodecTest, TheEnvelopeIsChecked) {
  const std::string sealed = SealState(kFormat, "me", "body");
  EXPECT_EQ(OpenState(kFormat, "me", sealed).value(), "body");
  EXPECT_EQ(OpenState(kFormat, "", SealState(kFormat, "", "")).value(), "");
  const auto error = [&sealed](StateFormat format, std::string_view owner) {
    return OpenState(format, owner, sealed).status();
  };
  EXPECT_THAT(MessageOf(error(kFormat, "you")), HasSubstr("owner=you name=me"));
  StateFormat other = kFormat;
  other.version = 4;
  EXPECT_THAT(MessageOf(error(other, "me")), HasSubstr("version=3 expected=4"));
  EXPECT_EQ(error(other, "me").code(), absl::StatusCode::kInvalidArgument);
  other = kFormat;
  other.magic = "KVTESTER";
  EXPECT_THAT(MessageOf(error(other, "me")), HasSubstr("magic expected=KVTESTER"));
  other = kFormat;
  other.bytes_max = sealed.size() - 1;
  EXPECT_THAT(MessageOf(error(other, "me")), HasSubstr("too long"));
  for (size_t at = 0; at < sealed.size(); ++at) {
    std::string damaged = sealed;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    EXPECT_FALSE(OpenState(kFormat, "me", damaged).ok()) << at;
    EXPECT_FALSE(OpenState(kFormat, "me", sealed.substr(0, at)).ok()) << at;
  }
  EXPECT_FALSE(OpenState(kFormat, "me", sealed + "x").ok());
}

TEST(StateCodecTest, ADigestTellsTextsApart) {
  EXPECT_EQ(DigestOf("rows 0..4"), DigestOf("rows 0..4"));
  EXPECT_NE(DigestOf("rows 0..4"), DigestOf("rows 0..5"));
}

}  // namespace
}  // namespace kvasir
