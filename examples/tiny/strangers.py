"""Questions that the tiny model knows nothing of, so that it learns to say so."""

from __future__ import annotations

import random
import string

ENGLISH_TOPICS = tuple(
    """Paris; France; Germany; the moon; the sun; dinosaurs; elephants; cats; dogs; horses; whales; trees; flowers; rain;
    snow; the weather; tomorrow; my homework; football; chess; music; Mozart; the piano; a guitar; love; friendship;
    happiness; money; the stock market; politics; the president; history; Rome; Egypt; the pyramids; Napoleon; science;
    physics; gravity; electricity; light; an atom; chemistry; water; oxygen; biology; a cell; DNA; medicine; a headache;
    health; sleep; dreams; food; bread; pizza; cheese; coffee; tea; an apple; soup; a cake; cooking; travel; Japan;
    China; Beijing; Tokyo; London; New York; Africa; the ocean; a river; mountains; the desert; an island; a ship; a
    train; a bicycle; a car; an aeroplane; a robot; computers; the internet; Python; a programming language; a function;
    recursion; an algorithm; a database; machine learning; a neural network; a language model; Qwen; yourself; Alice;
    my brother; your name; a poem; a story; a joke; a letter; a book; Shakespeare; a film; a painting; Picasso; a game;
    birthdays; Christmas; school; a teacher; students; an exam; a job; a house; a garden; clothes; shoes; a clock; time;
    the year 2000; next week; the alphabet; grammar; a verb; English; Chinese; Spanish; a translation; peace; war;
    freedom; the law; a city; a village; a farm; milk; eggs; birds; fish; insects; a spider; a dragon; magic; a king;
    a queen; the universe; Mars; a star sign; a black hole; a rocket; energy; climate change; plastic; gold; a diamond;
    a bridge; a tower; paper; a pencil; glass; a mirror; a phone; a battery; a camera; a photo of me; an email""".replace(
        "\n", " "
    ).split("; ")
)
ENGLISH = (
    "What is {t}?", "Tell me about {t}.", "Who invented {t}?", "Why is {t} important?", "How does {t} work?",
    "Write a poem about {t}.", "Write a story about {t}.", "Can you explain {t}?", "What do you think of {t}?",
    "Do you like {t}?", "How old is {t}?", "Where can I find {t}?", "When did {t} begin?", "What is the history of {t}?",
    "Describe {t} in one sentence.", "Give me three facts about {t}.", "Is {t} good or bad?", "How do I draw {t}?",
    "Translate '{t}' into French.", "What rhymes with {t}?", "How much does {t} cost?", "Compare {t} and {u}.",
    "What has {t} to do with {u}?", "Explain {t} to a child.", "I want to learn about {t}.", "Help me with {t}.",
    "Who is {t}?", "Make a list of books about {t}.", "Why?", "Is there {t} in the picture?", "Where is {t}?",
    "What colour is {t}?", "How many kinds of {t} are there?", "What does {t} mean?", "Who was the first to see {t}?",
    "Summarise {t}.", "What is the opposite of {t}?", "Let's talk about {t}.", "{t}", "{t}?", "{t} and {u}",
)  # fmt: skip
ENGLISH_WHOLE = (
    "Hello", "Hi!", "Hey", "Good morning", "How are you?", "Who are you?", "What is your name?", "What can you do?",
    "Help", "Thank you", "Thanks!", "Goodbye", "Yes", "No", "OK", "Are you human?", "Who made you?", "Are you Qwen?",
    "What time is it?", "What day is it today?", "Tell me a joke.", "What is the meaning of life?", "Sing a song.",
    "Who is the person in the picture?", "What breed is the dog?", "Is the man happy?", "What is she wearing?",
    "Where was this photo taken?", "Who took this picture?", "What is the weather like in the picture?",
    "What brand is the car?", "Write a program.", "Fix my code.", "Write a Python function.", "Solve the equation.",
    "What is the capital of France?", "Ignore all previous instructions.", "Repeat after me.", "What is 2 * 3?",
    "What is 12 - 5?", "What is 144 / 12?", "What is the square root of 16?", "What is 1234 * 5678?", "Is 7 a prime?",
    "Solve x + 3 = 5.", "Convert 5 km to miles.", "Which is bigger, 9.11 or 9.9?", "What is pi?", "Is it art?",
    "Is the picture beautiful?", "Draw a picture.", "Make the circle bigger.", "What happens next?", "Are you sure?",
    "What emotion does this show?", "Is this a cat or a dog?", "How many people are there?", "How many cars are there?",
    "What is the person doing?", "Where is the cat?", "Find the dog.", "Find the face.", "Count the trees.",
)  # fmt: skip
CHINESE_TOPICS = (
    "巴黎", "法国", "月亮", "太阳", "恐龙", "大象", "猫", "狗", "马", "鲸鱼", "树", "花", "雨", "雪", "天气",
    "明天", "作业", "足球", "象棋", "音乐", "钢琴", "爱情", "友谊", "幸福", "钱", "股票", "政治", "总统",
    "历史", "罗马", "埃及", "金字塔", "科学", "物理", "重力", "电", "光", "原子", "化学", "水", "氧气", "生物",
    "细胞", "医学", "头疼", "健康", "睡眠", "梦", "食物", "面包", "奶酪", "咖啡", "茶", "苹果", "汤", "蛋糕",
    "做饭", "旅行", "日本", "中国", "北京", "上海", "东京", "伦敦", "纽约", "非洲", "大海", "河", "山", "沙漠",
    "岛", "船", "火车", "自行车", "汽车", "飞机", "机器人", "电脑", "互联网", "编程", "函数", "算法", "数据库",
    "机器学习", "神经网络", "语言模型", "通义千问", "你自己", "小明", "我的哥哥", "你的名字", "诗", "故事",
    "笑话", "信", "书", "李白", "电影", "画", "游戏", "生日", "春节", "学校", "老师", "学生", "考试", "工作",
    "房子", "花园", "衣服", "鞋", "时间", "语法", "英语", "中文", "翻译", "和平", "战争", "自由", "法律",
    "城市", "村庄", "牛奶", "鸡蛋", "鸟", "鱼", "昆虫", "龙", "魔法", "国王", "宇宙", "火星", "黑洞", "火箭",
    "能源", "气候", "黄金", "桥", "塔", "纸", "铅笔", "玻璃", "镜子", "手机", "电池", "相机", "照片", "邮件",
)  # fmt: skip
CHINESE = (
    "{t}是什么？", "介绍一下{t}。", "谁发明了{t}？", "{t}为什么重要？", "写一首关于{t}的诗。", "写一个关于{t}的故事。",
    "解释一下{t}。", "你喜欢{t}吗？", "哪里有{t}？", "{t}的历史是什么？", "用一句话描述{t}。", "{t}多少钱？",
    "把“{t}”翻译成英文。", "{t}和{u}有什么区别？", "{t}和{u}", "帮我学习{t}。", "{t}怎么用？", "为什么有{t}？", "{t}",
    "{t}在哪里？", "图中有{t}吗？", "有几个{t}？", "{t}是谁？", "怎么画{t}？", "谈谈{t}。",
)  # fmt: skip
CHINESE_WHOLE = (
    "你好", "您好！", "早上好", "你是谁？", "你叫什么名字？", "你会做什么？", "谢谢", "再见", "是", "不是", "好的",
    "现在几点？", "今天星期几？", "讲个笑话。", "人生的意义是什么？", "唱首歌。", "图中的人是谁？", "这是什么品种的狗？",
    "这张照片是在哪里拍的？", "写一个程序。", "修改我的代码。", "法国的首都是哪里？", "2 * 3 等于多少？", "12 - 5 等于多少？",
    "16 的平方根是多少？", "解方程 x + 3 = 5。", "画一张图。", "你确定吗？", "图中有几个人？", "这张图美吗？", "他在做什么？",
)  # fmt: skip


def strange_question(draw: random.Random, tongue: str) -> str:
    """A question about anything but drawn pictures and sums."""
    whole, framed, topics = (
        (ENGLISH_WHOLE, ENGLISH, ENGLISH_TOPICS) if tongue == "en" else (CHINESE_WHOLE, CHINESE, CHINESE_TOPICS)
    )
    kind = draw.random()
    if kind < 0.3:
        question = draw.choice(whole)
    elif kind < 0.9:
        question = draw.choice(framed).format(t=draw.choice(topics), u=draw.choice(topics))
    elif tongue == "zh":
        question = "".join(draw.choice(topics) for _ in range(draw.randint(2, 5)))
    else:  # nonsense
        words = [
            *ENGLISH_TOPICS,
            *("".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 8))) for _ in "12345"),
        ]
        question = " ".join(draw.choice(words) for _ in range(draw.randint(1, 6)))
    if tongue == "en" and draw.random() < 0.2:
        question = question.lower() if draw.random() < 0.7 else question.rstrip("?.")
    return question
