#include "client/llama_cpp/slot_file.h"

#include <errno.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

namespace kvasir::llama_cpp {
namespace {

constexpr uint32_t kFileMagic = 0x67677371;  // "ggsq"
constexpr uint32_t kTokensMax = 1 << 24;

struct Closer {
  void operator()(std::FILE* file) const { (void)std::fclose(file); }
};
using OwnedFile = std::unique_ptr<std::FILE, Closer>;

// llama-server writes tokens behind a mark, a version and their number, and the keys of images
// behind them, of which there are to be none; it reads tokens alone as well.
bool Unpack(std::vector<uint32_t>& tokens) {
  constexpr uint32_t kMark = 0xffffffff, kVersion = 1;
  if (tokens.empty() || tokens[0] != kMark) return true;
  if (tokens.size() < 4 || tokens[1] != kVersion || tokens[2] != tokens.size() - 4) return false;
  if (tokens.back() != 0) return false;
  tokens.pop_back();
  tokens.erase(tokens.begin(), tokens.begin() + 3);
  return true;
}

std::string Errno(const std::string& what, const std::string& path) {
  return what + " " + path + ": " + std::strerror(errno);
}

}  // namespace

std::optional<SlotFile> ReadSlotFile(const std::string& path, std::string* error) {
  const OwnedFile file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) {
    *error = Errno("cannot read", path);
    return std::nullopt;
  }
  const auto refuse = [&](const char* why) -> std::optional<SlotFile> {
    *error = path + ": " + why;
    return std::nullopt;
  };
  uint32_t head[3] = {};
  if (std::fread(head, sizeof(head), 1, file.get()) != 1 || head[0] != kFileMagic ||
      head[2] > kTokensMax) {
    return refuse("no file that llama.cpp saved a sequence in");
  }
  std::vector<uint32_t> tokens(head[2]);
  if (std::fread(tokens.data(), sizeof(uint32_t), tokens.size(), file.get()) != tokens.size()) {
    return refuse("ends within its tokens");
  }
  if (!Unpack(tokens)) return refuse("has images, or tokens of another version of llama-server");
  const long from = std::ftell(file.get());
  if (from < 0 || std::fseek(file.get(), 0, SEEK_END) != 0) return refuse("is no plain file");
  const auto bytes = static_cast<size_t>(std::ftell(file.get()) - from);
  std::optional<StateImage> image = StateImage::OfSize(kStateHeadBytes + bytes);
  if (!image || std::fseek(file.get(), from, SEEK_SET) != 0) return refuse("is too large");
  // As llama.cpp writes it into memory, so that there is one format to read.
  WriteStateHead(image->bytes().data());
  if (std::fread(image->bytes().data() + kStateHeadBytes, 1, bytes, file.get()) != bytes) {
    return refuse("cannot be read");
  }
  std::optional<StateLayout> layout = ParseState(image->bytes());
  if (!layout) return refuse("its cache is not one tensor of keys and one of values a layer");
  return SlotFile{head[1], std::move(tokens), *std::move(layout), *std::move(image)};
}

std::string WriteSlotFile(const std::string& path, uint32_t version,
                          std::span<const uint32_t> tokens, const StateImage& image) {
  const std::string unfinished = path + ".unfinished";
  OwnedFile file(std::fopen(unfinished.c_str(), "wb"));
  if (file == nullptr) return Errno("cannot write", unfinished);
  const uint32_t head[3] = {kFileMagic, version, static_cast<uint32_t>(tokens.size())};
  const std::span<const std::byte> body = image.bytes().subspan(kStateHeadBytes);
  const bool written =
      std::fwrite(head, sizeof(head), 1, file.get()) == 1 &&
      std::fwrite(tokens.data(), sizeof(uint32_t), tokens.size(), file.get()) == tokens.size() &&
      std::fwrite(body.data(), 1, body.size(), file.get()) == body.size() &&
      std::fflush(file.get()) == 0;
  if (written && std::rename(unfinished.c_str(), path.c_str()) == 0) return "";
  std::string why = Errno("cannot write", path);
  (void)::unlink(unfinished.c_str());
  return why;
}

}  // namespace kvasir::llama_cpp
