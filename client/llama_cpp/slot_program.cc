// kvasir-llama-slot: files that llama-server saves its slots in, to and from the daemon.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/llama_cpp/daemon_model.h"
#include "client/llama_cpp/daemon_rows.h"
#include "client/llama_cpp/slot_file.h"

#include <CLI/CLI.hpp>

namespace kvasir::llama_cpp {
namespace {

struct Arguments {
  std::string file, like, model, tokens, salt, socket;
};

int Refuse(const std::string& why) {
  std::fprintf(stderr, "kvasir-llama-slot: %s\n", why.c_str());
  return 1;
}

// Connects, and opens a sequence of the cache that `layout` is of.
struct Opened {
  OwnedSession session;
  OwnedSequence sequence;
};
kvasir_code Open(const Arguments& arguments, const StateLayout& layout, const kvasir_prompt& prompt,
                 Opened* opened, kvasir_error* error) {
  const char* const socket = arguments.socket.empty() ? nullptr : arguments.socket.c_str();
  opened->session = ConnectTo(FindDaemon(socket), error);
  if (opened->session == nullptr) return static_cast<kvasir_code>(error->code);
  CacheIdentity identity;
  identity.name = "llama.cpp slot";
  kvasir_code code = DigestOf(arguments.model.c_str(), &identity.weights_digest, error);
  if (code != KVASIR_OK) return code;
  // No token can be tried, as kvasir_llama_open() does.
  identity.rows_digest = ShortDigest("slot file " + layout.Text());
  identity.vocabulary_size = 1 << 24;
  kvasir_model model{};
  code = RegisterCache(opened->session.get(), layout, identity, &model, error);
  if (code != KVASIR_OK) return code;
  return OpenCache(opened->session.get(), model, "full", &prompt, &opened->sequence, error);
}

int Save(const Arguments& arguments) {
  std::string why;
  std::optional<SlotFile> slot = ReadSlotFile(arguments.file, &why);
  if (!slot) return Refuse(why);
  kvasir_error error{};
  Opened opened;
  const kvasir_prompt prompt = PromptOf(slot->tokens, 0, arguments.salt);
  kvasir_code code = Open(arguments, slot->layout, prompt, &opened, &error);
  kvasir_sequence* const to = opened.sequence.get();
  if (code == KVASIR_OK && kvasir_rows(to) < slot->tokens.size()) {
    code = CopyRowsTo(to, slot->tokens, slot->layout, slot->image, &error);
    if (code == KVASIR_OK) code = kvasir_publish_prefix(to, nullptr, nullptr, &error);
  }
  if (code != KVASIR_OK) return Refuse(error.text);
  std::printf("%llu\n", static_cast<unsigned long long>(kvasir_rows(to)));
  return 0;
}

// Every number in a text, such as the answer of llama-server's /tokenize.
std::vector<uint32_t> NumbersIn(std::istream& text) {
  const std::string all(std::istreambuf_iterator<char>(text), {});
  std::vector<uint32_t> numbers;
  bool within = false;
  for (const char c : all) {
    const bool digit = c >= '0' && c <= '9';
    if (digit && !within) numbers.push_back(0);
    if (digit) numbers.back() = numbers.back() * 10 + static_cast<uint32_t>(c - '0');
    within = digit;
  }
  return numbers;
}

int Load(const Arguments& arguments) {
  std::vector<uint32_t> tokens;
  if (arguments.tokens == "-") {
    tokens = NumbersIn(std::cin);
  } else {
    std::ifstream in(arguments.tokens);
    if (!in) return Refuse("cannot read " + arguments.tokens);
    tokens = NumbersIn(in);
  }
  if (tokens.size() < 2) return Refuse("there are not two tokens in " + arguments.tokens);
  std::string why;
  const std::optional<SlotFile> like = ReadSlotFile(arguments.like, &why);
  if (!like) return Refuse(why);
  kvasir_error error{};
  Opened opened;
  // llama-server computes the last token of a prompt, whatever its slot holds.
  const kvasir_prompt prompt = PromptOf(tokens, tokens.size() - 1, arguments.salt);
  kvasir_code code = Open(arguments, like->layout, prompt, &opened, &error);
  VisibleRows visible;
  if (code == KVASIR_OK) code = FindVisibleRows(opened.sequence.get(), &visible, &error);
  if (code != KVASIR_OK) return Refuse(error.text);
  if (visible.positions.empty()) return Refuse("nothing of these tokens is there");
  const StateLayout layout = like->layout.With(visible.positions);
  std::optional<StateImage> image = StateImage::Make(layout);
  if (!image) return Refuse("no address space for the state");
  WriteRows(visible, layout, *image);
  tokens.resize(visible.positions.size());
  why = WriteSlotFile(arguments.file, like->version, tokens, *image);
  if (!why.empty()) return Refuse(why);
  std::printf("%zu\n", tokens.size());
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app("Files that llama-server saves its slots in, to and from kvasird. Prints the rows.",
               "kvasir-llama-slot");
  Arguments arguments;
  app.require_subcommand(1);
  const auto add_common = [&](CLI::App* command) {
    command->add_option("file", arguments.file, "the slot's file")->required();
    command->add_option("--model", arguments.model, "the GGUF file that llama-server runs")
        ->required();
    command->add_option("--salt", arguments.salt,
                        "what else makes rows what they are: adapters, RoPE settings");
    command->add_option("--socket", arguments.socket,
                        "control socket (default: $KVASIR_CONTROL_SOCKET, else as kvasirctl)");
  };
  CLI::App* const save = app.add_subcommand("save", "publish the rows of a saved slot");
  add_common(save);
  CLI::App* const load =
      app.add_subcommand("load", "write a slot's file with the longest prefix of some tokens");
  add_common(load);
  load->add_option("--like", arguments.like, "any file that this llama-server saved a slot in")
      ->required();
  load->add_option("--tokens", arguments.tokens, "file with the prompt's token ids, or -")
      ->required();
  CLI11_PARSE(app, argc, argv);
  return save->parsed() ? Save(arguments) : Load(arguments);
}

}  // namespace
}  // namespace kvasir::llama_cpp

int main(int argc, char** argv) { return kvasir::llama_cpp::Main(argc, argv); }
